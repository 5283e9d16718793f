// One picture of a reply, from the first coarse scale to the finished file.
// The module exports an element and no component: Chainlit evaluates this file at every update, and only an element is
// then reconciled in place, so that the same <img> changes while the picture forms. Hence no hooks here.
import { Check, Download, RefreshCw } from "lucide-react";
import { Button } from "@/components/ui/button";

const { state, src, alt, caption, width, height, step, total } = props;
const isDone = state === "done";

const dialogOf = (event) => event.currentTarget.closest("figure").querySelector("dialog");

const download = async () => {
  const blob = await (await fetch(props.png)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = props.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

const again = () => callAction({ name: "again", payload: { turn: props.turn } });
const choose = () => callAction({ name: "choose", payload: { turn: props.turn, index: props.index } });

export default (
  <figure className="picture" data-state={state}>
    <button
      type="button"
      className="picture-paper"
      style={{ aspectRatio: `${width} / ${height}` }}
      aria-label={isDone ? "Show larger" : caption}
      disabled={!isDone}
      onClick={(event) => dialogOf(event).showModal()}
    >
      {src ? <img src={src} alt={alt} width={width} height={height} /> : null}
    </button>
    <div className="picture-progress" aria-hidden="true">
      <div style={{ width: `${(100 * step) / Math.max(1, total)}%` }} />
    </div>
    <figcaption>
      <span className="picture-caption" role="status">{caption}</span>
      {isDone ? (
        <span className="picture-actions">
          {props.role === "chosen" ? (
            <span className="picture-chosen" title="The conversation goes on with this picture"><Check size={14} /> chosen</span>
          ) : null}
          {props.role === "alternative" ? (
            <Button variant="ghost" size="sm" className="picture-choose" title="Go on with this picture" onClick={choose}>
              <Check /> Choose
            </Button>
          ) : null}
          <Button variant="ghost" size="sm" className="picture-again" title="Draw it again with the next seed" onClick={again}>
            <RefreshCw /> Again
          </Button>
          <Button variant="ghost" size="sm" className="picture-download" title="The picture in its own size, with how it was made" onClick={download}>
            <Download /> PNG
          </Button>
        </span>
      ) : null}
    </figcaption>
    <dialog onClick={(event) => event.currentTarget.close()}>{isDone ? <img src={src} alt={alt} /> : null}</dialog>
  </figure>
);
