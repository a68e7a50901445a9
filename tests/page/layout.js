// The texts of the page that stick out of their card or canvas, or that cover another text.
(() => {
  const boxes = [];
  // Texts of the document.
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), range = document.createRange();
    if (!text) continue;
    range.selectNodeContents(walker.currentNode);
    const within = walker.currentNode.parentElement.closest("section").getBoundingClientRect();
    for (const box of range.getClientRects()) if (box.width > 0) boxes.push({ text, box, within });
  }
  // Texts that are drawn.
  const pens = CanvasRenderingContext2D.prototype, { fillText } = pens;
  pens.fillText = function (text, x, y) {
    const size = this.measureText(text), scale = devicePixelRatio || 1, within = this.canvas.getBoundingClientRect();
    const corners = [[-size.actualBoundingBoxLeft, -size.actualBoundingBoxAscent], [size.actualBoundingBoxRight, size.actualBoundingBoxDescent]]
      .map(([dx, dy]) => this.getTransform().transformPoint({ x: x + dx, y: y + dy }))
      .map(point => [within.left + point.x / scale, within.top + point.y / scale]);
    const [xs, ys] = [0, 1].map(axis => corners.map(corner => corner[axis]));
    boxes.push({ text, within, box: { left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) } });
    return fillText.call(this, text, x, y);
  };
  drawPlane(); drawCourse(); drawFace();
  pens.fillText = fillText;
  // Two words must not look like one, so texts of one line keep a gap.
  const covers = (a, b) => a.left < b.right + 3 && b.left < a.right + 3 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4;
  const outside = boxes.filter(({ box, within }) => box.right > within.right + 1 || box.left < within.left - 1);
  const covered = boxes.filter((one, i) => boxes.some((other, k) => k < i && covers(one.box, other.box)));
  return [...new Set(outside.concat(covered).map(({ text }) => text))];
})()
