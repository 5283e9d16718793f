// One picture of a reply, from the first coarse scale to the finished file, and all that can be done with it.
// The module exports an element and no component: Chainlit evaluates this file at every update, and only an element is
// then reconciled in place, so that the same <img> changes while the picture forms. Hence no hooks here.
import { Check, ClipboardCopy, Columns2, Download, Images, Lasso, PencilLine, RefreshCw, SlidersHorizontal } from "lucide-react";
import { Button } from "@/components/ui/button";
import { Popover, PopoverContent, PopoverTrigger } from "@/components/ui/popover";

const { state, src, alt, caption, width, height, step, total, version, scales } = props;
const isDone = state === "done";
const canBeRefined = scales > 1;

const act = (name, payload = {}) => callAction({ name, payload: { turn: props.turn, index: props.index, version, ...payload } });

const figureOf = (event) => event.currentTarget.closest("figure");

const download = async () => {
  const blob = await (await fetch(props.png)).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = props.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
};

// Pages that do not come over https, save from this very machine, have no clipboard: then the old way.
const copy = async (event) => {
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(props.recipe);
  } catch {
    const area = document.createElement("textarea");
    area.value = props.recipe;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.dataset.copied = "";
  setTimeout(() => delete button.dataset.copied, 1500);
};

const compare = (event) => {
  const figure = figureOf(event);
  if ("compare" in figure.dataset) delete figure.dataset.compare;
  else figure.dataset.compare = "";
};

const slide = (event) => figureOf(event).style.setProperty("--cut", `${event.currentTarget.value}%`);

const keepLine = (keep) => `Keeps scales 1 to ${keep} of ${scales}, draws the finer ones anew.`;

const showKept = (event) => {
  event.currentTarget.closest(".picture-refine").querySelector("p").textContent = keepLine(event.currentTarget.value);
};

const refine = (event) => {
  act("refine", { keep: Number(event.currentTarget.closest(".picture-refine").querySelector("input").value) });
  document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" })); // closes the popover
};

const tool = (name, label, title, Icon, onClick) => (
  <Button variant="ghost" className={`picture-tool picture-${name}`} title={title} aria-label={title} onClick={onClick}>
    <Icon />
    <span>{label}</span>
  </Button>
);

const standing = props.current ? (
  <span className="picture-chosen" title="What you ask for next starts from this picture">
    <Check size={14} /> current
  </span>
) : props.role === "alternative" ? (
  <Button variant="outline" size="sm" className="picture-choose" title="This one is better: go on with it" onClick={() => act("choose")}>
    <Check /> Choose
  </Button>
) : (
  <Button variant="outline" size="sm" className="picture-edit" title="Go on from this picture" onClick={() => act("go_to")}>
    <PencilLine /> Edit this
  </Button>
);

const tools = (
  <div className="picture-tools" role="toolbar" aria-label="What to do with this picture">
    {tool("again", "Again", "Draw it again with the next seed", RefreshCw, () => act("again"))}
    {canBeRefined ? tool("vary", "Vary", "Three variations: the coarse half stays, the rest is drawn anew", Images, () => act("vary")) : null}
    {canBeRefined ? (
      <Popover>
        <PopoverTrigger asChild>{tool("refine-open", "Refine", "Keep the coarse scales, draw the fine ones anew", SlidersHorizontal)}</PopoverTrigger>
        <PopoverContent className="picture-refine" align="start">
          <p>{keepLine(Math.floor(scales / 2))}</p>
          <input type="range" min="1" max={scales - 1} defaultValue={Math.floor(scales / 2)} aria-label="Scales to keep" onInput={showKept} />
          <Button size="sm" onClick={refine}>Refine</Button>
        </PopoverContent>
      </Popover>
    ) : null}
    {tool("region", "Region", "Change only a part of it", Lasso, () => act("open_region"))}
    {props.before ? tool("compare", "Before", "Compare it with the picture it was made from", Columns2, compare) : null}
    {tool("copy", "Copy", "Copy the words and the seed", ClipboardCopy, copy)}
    {tool("download", "PNG", "The picture in its own size, with how it was made", Download, download)}
  </div>
);

export default (
  <figure className="picture" data-state={state} data-current={props.current ? "" : undefined} data-version={version} data-of={props.of}>
    <div className="picture-stage" style={{ aspectRatio: `${width} / ${height}` }}>
      <button
        type="button"
        className="picture-paper"
        aria-label={isDone ? "Show larger" : caption}
        disabled={!isDone}
        onClick={(event) => figureOf(event).querySelector("dialog").showModal()}
      >
        {src ? <img src={src} alt={alt} width={width} height={height} /> : null}
      </button>
      {isDone && props.before ? (
        <div className="picture-before">
          <img src={props.before} alt="the picture before" />
          <span className="picture-label">before</span>
          <span className="picture-label">after</span>
          <input type="range" min="0" max="100" defaultValue="50" aria-label="Before and after" onInput={slide} />
        </div>
      ) : null}
    </div>
    <div className="picture-progress" aria-hidden="true">
      <div style={{ width: `${(100 * step) / Math.max(1, total)}%` }} />
    </div>
    <figcaption>
      <span className="picture-caption" role="status">{caption}</span>
      {isDone ? standing : null}
    </figcaption>
    {isDone ? tools : null}
    <dialog onClick={(event) => event.currentTarget.close()}>{isDone ? <img src={src} alt={alt} /> : null}</dialog>
  </figure>
);
