"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Tables whose columns sort: the key of a cell is a number.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction);
        const sign = direction === "ascending" ? 1 : -1;
        const key = (row) => Number(row.cells[column].dataset.key);
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort((a, b) => sign * (key(a) - key(b))));
      });
    });
  }

  // The confusion matrix.
  const { classes, cells, images, pictures } = JSON.parse(byId("behind").textContent);
  const total = classes.length;
  const counts = new Map(cells.map(([row, column, count]) => [row * total + column, count]));
  const mistakes = cells.filter(([row, column]) => row !== column);
  const behind = new Map();
  for (const image of images) {
    const place = image[0] * total + image[1];
    if (!behind.has(place)) behind.set(place, []);
    behind.get(place).push(image);
  }
  const matrix = byId("matrix");
  const drawing = matrix.querySelector(".cells");
  const cursor = byId("cursor");
  const readout = byId("readout");
  const side = Number(matrix.dataset.side);
  const margin = Number(matrix.dataset.margin);
  const at = { row: 0, column: 0 };

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const named = (text) => {
    const made = element("bdi", "name", text);
    made.title = text;
    return made;
  };
  const plural = (count) => `${count.toLocaleString("en")} ${count === 1 ? "image" : "images"}`;
  const countAt = (row, column) => counts.get(row * total + column) ?? 0;

  const describe = (target, row, column) => {
    const what = row === column ? [" classified correctly: "] : [" taken for ", named(classes[column]), ": "];
    target.replaceChildren(named(classes[row]), ...what, plural(countAt(row, column)));
  };
  const move = (row, column) => {
    at.row = Math.max(0, Math.min(total - 1, row));
    at.column = Math.max(0, Math.min(total - 1, column));
    cursor.setAttribute("x", at.column * side);
    cursor.setAttribute("y", at.row * side);
    cursor.setAttribute("visibility", "visible");
    describe(readout, at.row, at.column);
  };
  const reveal = () => {
    const left = margin + at.column * side;
    const right = left + side;
    if (right > matrix.scrollLeft + matrix.clientWidth) matrix.scrollLeft = right - matrix.clientWidth + side;
    if (left - margin < matrix.scrollLeft) matrix.scrollLeft = Math.max(0, left - margin - side);
  };

  const pair = (what, name, share, wrong) => {
    const made = element("span", wrong ? "pair wrong" : "pair");
    made.append(element("span", "what", what), named(name));
    if (share) made.append(element("span", "share", share));
    return made;
  };
  const tile = ([row, column, confidence, path, picture]) => {
    const figure = element("figure", "tile");
    if (picture >= 0) {
      const image = element("img");
      image.src = pictures[picture];
      image.alt = `labelled ${classes[row]}, answered ${classes[column]}`;
      figure.append(image);
    } else {
      figure.append(element("div", "no-image", "no picture in this file"));
    }
    const caption = element("figcaption");
    const shown = element("span", "path");
    shown.title = path;
    shown.append(element("bdi", "", path));
    const share = `${(100 * confidence).toFixed(1)}\u202f%`;
    caption.append(pair("label", classes[row]), pair("answer", classes[column], share, row !== column), shown);
    figure.append(caption);
    return figure;
  };
  const show = (row, column) => {
    move(row, column);
    reveal();
    const found = behind.get(row * total + column) ?? [];
    describe(byId("cell-title"), row, column);
    byId("cell-tiles").replaceChildren(...found.map(tile));
    const more = countAt(row, column) - found.length;
    byId("cell-more").textContent = more > 0 ? `${plural(more)} more in predictions.csv` : "";
    const cell = byId("cell");
    cell.hidden = false;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    cell.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
    return cell;
  };

  const cellOf = (event) => {
    const box = drawing.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / side);
    const row = Math.floor((event.clientY - box.top - margin) / side);
    const inside = row >= 0 && column >= 0 && row < total && column < total;
    return inside ? [row, column] : null;
  };
  drawing.addEventListener("pointermove", (event) => {
    const place = cellOf(event);
    if (place && event.pointerType === "mouse") move(...place);
  });
  drawing.addEventListener("click", (event) => {
    const place = cellOf(event);
    if (place) show(...place);
  });
  matrix.addEventListener("focus", () => move(at.row, at.column));
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  matrix.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (steps[event.key]) move(at.row + steps[event.key][0], at.column + steps[event.key][1]);
    else if (event.key === "Home") move(at.row, 0);
    else if (event.key === "End") move(at.row, total - 1);
    else if (event.key.toLowerCase() === "n" && mistakes.length) {
      const place = at.row * total + at.column;
      const [row, column] = mistakes.find(([r, c]) => r * total + c > place) ?? mistakes[0];
      move(row, column);
    } else if (event.key === "Enter" || event.key === " ") show(at.row, at.column);
    else return;
    event.preventDefault();
    reveal();
  });
  for (const link of document.querySelectorAll(".cell-link")) {
    link.addEventListener("click", () => {
      show(Number(link.dataset.row), Number(link.dataset.column)).focus({ preventScroll: true });
    });
  }

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
