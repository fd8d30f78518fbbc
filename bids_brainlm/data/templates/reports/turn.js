// A brain that turns by pointer or keys, drawn with WebGL. Where there is none, nothing is shown: static maps stand beside it.
for (const figure of document.querySelectorAll("[data-turn]")) {
  const data = JSON.parse(figure.dataset.turn);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const canvas = figure.querySelector("canvas");
  const gl = canvas.getContext("webgl", { antialias: true });
  if (!gl) continue;
  const faces = new Uint16Array(bytes(data.faces).buffer);
  const whole = new Int16Array(bytes(data.coordinates).buffer);
  const half = whole.length / 2, n = half / 3;
  const sulcal = bytes(data.sulcal);

  const normals = (xyz) => {
    const out = new Float32Array(xyz.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
      const u = [0, 1, 2].map((k) => xyz[b + k] - xyz[a + k]), v = [0, 1, 2].map((k) => xyz[c + k] - xyz[a + k]);
      const w = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) out[corner + k] += w[k];
    }
    return out;
  };
  const buffer = (content, kind = gl.ARRAY_BUFFER) => {
    const made = gl.createBuffer();
    gl.bindBuffer(kind, made);
    gl.bufferData(kind, content, gl.STATIC_DRAW);
    return made;
  };
  const shader = (kind, text) => {
    const made = gl.createShader(kind);
    gl.shaderSource(made, text);
    gl.compileShader(made);
    gl.attachShader(program, made);
  };
  const program = gl.createProgram();
  shader(gl.VERTEX_SHADER, `attribute vec3 place, normal, colour; uniform mat3 turn; uniform vec3 shift, scale; varying vec3 tint;
    void main() {
      float light = 0.62 + 0.38 * max(normalize(turn * normal).z, 0.0);
      tint = colour * light;
      gl_Position = vec4(turn * (place + shift) * scale, 1.0);
    }`);
  shader(gl.FRAGMENT_SHADER, "precision mediump float; varying vec3 tint; void main() { gl_FragColor = vec4(tint, 1.0); }");
  gl.linkProgram(program);
  gl.useProgram(program);
  gl.enable(gl.DEPTH_TEST);
  gl.clearColor(1, 1, 1, 1);
  const sides = [0, 1].map((side) => {
    const xyz = Float32Array.from(whole.subarray(side * half, (side + 1) * half));
    return { place: buffer(xyz), normal: buffer(normals(xyz)) };
  });
  const index = buffer(faces, gl.ELEMENT_ARRAY_BUFFER);

  const paint = (map) => {
    const palette = bytes(map.palette), values = bytes(map.values), last = palette.length / 3 - 1;
    sides.forEach((one, side) => {
      const colours = new Float32Array(half);
      for (let i = 0; i < n; i++) {
        const step = values[side * n + i], grey = sulcal[side * n + i] ? 0.62 : 0.82, at = 3 * Math.round((step / 254) * last);
        for (let k = 0; k < 3; k++) colours[3 * i + k] = step === 255 ? grey : palette[at + k] / 255;
      }
      one.colour = buffer(colours);
    });
    const stops = Array.from({ length: 16 }, (_, i) => {
      const at = 3 * Math.round((i / 15) * last);
      return `rgb(${palette[at]},${palette[at + 1]},${palette[at + 2]})`;
    });
    figure.querySelector(".ramp").style.background = `linear-gradient(to right, ${stops.join(",")})`;
    const told = (x) => (Math.abs(x) < 10 ? x.toFixed(2) : x.toFixed(0));
    figure.querySelector(".low").textContent = told(map.low);
    figure.querySelector(".high").textContent = told(map.high);
  };

  const start = { yaw: -65, pitch: 15, zoom: 1 };
  const view = { ...start, side: "both" };
  const draw = () => {
    const room = canvas.clientWidth * devicePixelRatio, tall = canvas.clientHeight * devicePixelRatio;
    if (canvas.width !== room || canvas.height !== tall) Object.assign(canvas, { width: room, height: tall });
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const [a, p] = [view.yaw, view.pitch].map((degrees) => (degrees * Math.PI) / 180);
    const [ca, sa, cp, sp] = [Math.cos(a), Math.sin(a), Math.cos(p), Math.sin(p)];
    // Columns: where x (right), y (forward), z (up) of the brain go: to the right, up, and towards the viewer.
    gl.uniformMatrix3fv(gl.getUniformLocation(program, "turn"), false, [ca, -sp * sa, cp * sa, sa, sp * ca, -cp * ca, 0, cp, sp]);
    const size = (view.zoom * 0.92) / 1150, wide = Math.min(1, canvas.width / canvas.height);
    gl.uniform3f(gl.getUniformLocation(program, "scale"), size * wide * (canvas.height / canvas.width), size * wide, -size / 2);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, index);
    sides.forEach((one, side) => {
      if (view.side !== "both" && view.side !== ["left", "right"][side]) return;
      gl.uniform3f(gl.getUniformLocation(program, "shift"), view.side === "both" ? [-430, 430][side] : 0, 0, 0);
      for (const name of ["place", "normal", "colour"]) {
        const slot = gl.getAttribLocation(program, name);
        gl.bindBuffer(gl.ARRAY_BUFFER, one[name]);
        gl.enableVertexAttribArray(slot);
        gl.vertexAttribPointer(slot, 3, gl.FLOAT, false, 0, 0);
      }
      gl.drawElements(gl.TRIANGLES, faces.length, gl.UNSIGNED_SHORT, 0);
    });
    canvas.dataset.view = `${Math.round(view.yaw)} ${Math.round(view.pitch)} ${view.side}`;
  };
  const turn = (yaw, pitch, zoom = 1) => {
    view.yaw += yaw;
    view.pitch = Math.max(-90, Math.min(90, view.pitch + pitch));
    view.zoom = Math.max(0.6, Math.min(4, view.zoom * zoom));
    requestAnimationFrame(draw);
  };
  const keys = { ArrowLeft: [10, 0], ArrowRight: [-10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10], "+": [0, 0, 1.15], "-": [0, 0, 1 / 1.15] };
  canvas.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    turn(...keys[event.key]);
    event.preventDefault();
  });
  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (canvas.hasPointerCapture(event.pointerId)) turn(event.movementX / -2, event.movementY / 2);
  });
  figure.querySelector("[name=map]").addEventListener("change", (event) => {
    paint(data.maps[event.target.value]);
    draw();
  });
  figure.querySelector("[name=side]").addEventListener("change", (event) => {
    view.side = event.target.value;
    draw();
  });
  for (const button of figure.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => {
      [view.yaw, view.pitch] = button.dataset.view.split(" ").map(Number);
      view.zoom = start.zoom;
      draw();
    });
  }
  figure.classList.add("on");
  paint(data.maps[0]);
  draw();
  addEventListener("resize", draw);
}
