// Shows only the rows of the decoded texts that contain what is typed, and sorts them by the column whose heading is pressed.
// Without JavaScript neither the box nor the buttons are there.
for (const box of document.querySelectorAll(".finder")) {
  const input = box.querySelector("input"), count = box.querySelector("output");
  const body = document.querySelector("#" + input.dataset.rows + " tbody"), rows = [...body.rows];
  const find = () => {
    const wanted = input.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    count.textContent = wanted ? shown + " of " + rows.length + " rows" : "";
  };
  input.addEventListener("input", find);
  box.classList.add("on");

  const heads = [...body.parentElement.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim().toLowerCase();
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = (a, b) => (isNaN(a) || isNaN(b) ? String(a).localeCompare(b, undefined, { numeric: true }) : a - b);
      const sorted = [...rows].sort((a, b) => (down ? -1 : 1) * order(key(a), key(b)));
      body.append(...sorted);
    });
  });
}
