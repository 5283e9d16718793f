// A sheet on which a part of a picture is marked, with a box or a brush; what is marked is what may change.
// Exports an element, like Picture.jsx: no hooks, so what is being drawn is kept on the <canvas> itself, which stays.
import { Brush, Eraser, SquareDashedMousePointer } from "lucide-react";
import { Button } from "@/components/ui/button";

const { version, src, width, height, sheet } = props;
const MARK = "rgb(91 82 224)"; // shown half transparent; only where it is matters
const BRUSH = 0.1; // of the longer side
const SMALLEST = 0.01; // a click is no box

const sheetOf = (event) => event.currentTarget.closest("dialog");
const penOf = (node) => node.querySelector("canvas").getContext("2d", { willReadFrequently: true });

// Once for every sheet that is asked for: a page that is shown anew must not open it again.
const open = (node) => {
  if (!node || node.dataset.sheet === sheet || window.lastRegionSheet === sheet) return;
  node.dataset.sheet = window.lastRegionSheet = sheet;
  penOf(node).clearRect(0, 0, width, height);
  node.querySelector("input").value = "";
  describe(node);
  node.showModal();
};

const describe = (node) => {
  const { data } = penOf(node).getImageData(0, 0, width, height);
  let count = 0;
  for (let index = 3; index < data.length; index += 4) count += data[index] > 0;
  const share = Math.round((100 * count) / (width * height));
  node.querySelector(".region-share").textContent = count ? `${Math.max(1, share)} % of the picture may change` : "Nothing is marked yet";
  for (const button of node.querySelectorAll("[data-needs-mark]")) button.disabled = !count;
};

const pick = (event) => {
  sheetOf(event).dataset.tool = event.currentTarget.dataset.tool;
};

const point = (event) => {
  const box = event.currentTarget.getBoundingClientRect();
  return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * height) / box.height];
};

const begin = (event) => {
  const canvas = event.currentTarget;
  event.preventDefault();
  canvas.setPointerCapture(event.pointerId);
  const pen = canvas.getContext("2d");
  canvas.drag = { start: point(event), last: point(event), before: pen.getImageData(0, 0, width, height) };
  if (sheetOf(event).dataset.tool === "brush") stroke(canvas, point(event));
};

const move = (event) => {
  const canvas = event.currentTarget;
  if (!canvas.drag) return;
  if (sheetOf(event).dataset.tool === "brush") stroke(canvas, point(event));
  else box(canvas, point(event));
};

const end = (event) => {
  event.currentTarget.drag = null;
  describe(sheetOf(event));
};

const stroke = (canvas, to) => {
  const pen = canvas.getContext("2d");
  Object.assign(pen, { strokeStyle: MARK, lineCap: "round", lineJoin: "round", lineWidth: BRUSH * Math.max(width, height) });
  pen.beginPath();
  pen.moveTo(...canvas.drag.last);
  pen.lineTo(to[0], to[1] + 0.01); // a point, too, leaves a dot
  pen.stroke();
  canvas.drag.last = to;
};

const box = (canvas, to) => {
  const pen = canvas.getContext("2d");
  const [x, y] = canvas.drag.start;
  pen.putImageData(canvas.drag.before, 0, 0);
  if (Math.abs(to[0] - x) < SMALLEST * width || Math.abs(to[1] - y) < SMALLEST * height) return;
  pen.fillStyle = MARK;
  pen.fillRect(Math.min(x, to[0]), Math.min(y, to[1]), Math.abs(to[0] - x), Math.abs(to[1] - y));
};

const clear = (event) => {
  penOf(sheetOf(event)).clearRect(0, 0, width, height);
  describe(sheetOf(event));
};

const send = (later) => async (event) => {
  const node = sheetOf(event);
  const words = node.querySelector("input").value.trim();
  if (!later && !words) return node.querySelector("input").focus();
  const mask = node.querySelector("canvas").toDataURL("image/png");
  node.close();
  const { response: isMarked } = await callAction({ name: "mark_region", payload: { version, mask, later } });
  if (isMarked && !later) sendUserMessage(words, "Edit");
  return undefined;
};

export default (
  <dialog className="region" ref={open} data-tool="box" aria-label="Mark a part of the picture">
    <form onSubmit={(event) => { event.preventDefault(); if (!event.currentTarget.querySelector(".region-change").disabled) send(false)(event); }}>
      <header>
        <strong>What may change in picture {props.number}?</strong>
        <span className="region-share" role="status" />
      </header>
      <div className="region-stage" style={{ aspectRatio: `${width} / ${height}`, "--aspect": width / height }}>
        <img src={src} alt="" draggable={false} />
        <canvas width={width} height={height} onPointerDown={begin} onPointerMove={move} onPointerUp={end} onPointerCancel={end} />
      </div>
      <div className="region-tools">
        <Button type="button" variant="ghost" size="sm" data-tool="box" className="region-box" onClick={pick}><SquareDashedMousePointer /> Box</Button>
        <Button type="button" variant="ghost" size="sm" data-tool="brush" className="region-brush" onClick={pick}><Brush /> Brush</Button>
        <Button type="button" variant="ghost" size="sm" className="region-clear" onClick={clear}><Eraser /> Clear</Button>
      </div>
      <input type="text" className="region-words" placeholder="What should change there?" aria-label="What should change there?" />
      <footer>
        <Button type="button" variant="ghost" size="sm" className="region-cancel" onClick={(event) => sheetOf(event).close()}>Cancel</Button>
        <Button type="button" variant="outline" size="sm" className="region-later" data-needs-mark onClick={send(true)}>Use for my next message</Button>
        <Button type="submit" size="sm" className="region-change" data-needs-mark>Change it</Button>
      </footer>
    </form>
  </dialog>
);
