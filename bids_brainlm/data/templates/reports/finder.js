// Shows only the rows of the decoded texts that contain what is typed; without JavaScript the box is not shown at all.
for (const box of document.querySelectorAll(".finder")) {
  const input = box.querySelector("input"), count = box.querySelector("output");
  const rows = [...document.querySelectorAll("#" + input.dataset.rows + " tbody tr")];
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
}
