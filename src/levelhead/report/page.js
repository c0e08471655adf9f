"use strict";
document.documentElement.classList.add("js");

// A head's button sorts its column: first the way the button finds it, then the other.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, place) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") === "descending" || !head.hasAttribute("aria-sort");
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const text = row.cells[place + 1].dataset.v; // the recipe's name comes first
        return text === undefined ? Infinity * (up ? 1 : -1) : Number(text);
      };
      [...body.rows].sort((a, b) => (up ? 1 : -1) * (value(a) - value(b))).forEach((row) => body.append(row));
    });
  });
}

// One measure at a time, behind a row of buttons.
for (const views of document.querySelectorAll(".views")) {
  const parts = [...views.children];
  const row = document.createElement("div");
  row.className = "switch";
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", "Measure");
  const show = (chosen) => parts.forEach((part, place) => {
    part.classList.toggle("shown", place === chosen);
    row.children[place].setAttribute("aria-pressed", place === chosen);
  });
  parts.forEach((part, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = part.dataset.label;
    button.addEventListener("click", () => show(place));
    row.append(button);
  });
  views.prepend(row);
  show(0);
}

// A recipe chosen in a key stands out in every figure of its study; chosen again, it does not.
for (const study of document.querySelectorAll("article")) {
  const chosen = new Set();
  study.addEventListener("click", (event) => {
    const button = event.target.closest(".key button");
    if (!button) return;
    const number = button.dataset.s;
    chosen.has(number) ? chosen.delete(number) : chosen.add(number);
    study.classList.toggle("lit", chosen.size > 0);
    for (const mark of study.querySelectorAll("[data-s]")) {
      const on = chosen.has(mark.dataset.s);
      if (mark.matches("button")) mark.setAttribute("aria-pressed", on);
      else mark.classList.toggle("on", on);
    }
  });
}
