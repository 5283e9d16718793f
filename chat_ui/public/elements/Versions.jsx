// The pictures of a conversation as a small tree: left to right as they came from one another, branches below.
// Exports an element, like Picture.jsx and for the same reason.
import { Undo2, X } from "lucide-react";
import { Button } from "@/components/ui/button";

const SIDE = 52; // of a picture, in pixels
const STEP = 68; // from one to the next

const { versions, marked } = props;
const at = (place) => STEP * place + SIDE / 2 + 4;
const columns = Math.max(...versions.map(({ place }) => place[0])) + 1;
const rows = Math.max(...versions.map(({ place }) => place[1])) + 1;
const size = { width: STEP * columns - (STEP - SIDE) + 8, height: STEP * rows - (STEP - SIDE) + 8 };
const now = versions.find(({ current }) => current);

const line = ({ id, place, from }) => {
  const [x0, y0, x1, y1] = [at(from[0]), at(from[1]), at(place[0]), at(place[1])];
  const bend = `M ${x0} ${y0} C ${x0} ${y1}, ${x0} ${y1}, ${x1} ${y1}`;
  return <path key={id} d={bend} />;
};

const HOW = { attached: "attached", again: "again", refined: "refined", variation: "variation" };

// The picture to go on with is shown, and the row below the reply; who has scrolled elsewhere since then stays there.
const intoView = (node) => {
  if (!node || node.dataset.count === String(versions.length)) return;
  node.dataset.count = String(versions.length);
  node.scrollLeft = now ? at(now.place[0]) - node.clientWidth / 2 : node.scrollWidth;
  node.scrollTop = now ? at(now.place[1]) - node.clientHeight / 2 : node.scrollHeight;
  setTimeout(() => node.closest(".versions")?.scrollIntoView({ block: "nearest" }), 100); // the cards are laid out by then
};

export default (
  <section className="versions" aria-label="Versions">
    <header>
      <span>
        {versions.length === 1 ? "1 version" : `${versions.length} versions`}
        {now ? ` · going on from ${now.number}` : ""}
      </span>
      {marked ? (
        <Button variant="ghost" size="sm" className="versions-unmark" title="Changes may touch the whole picture again" onClick={() => callAction({ name: "unmark", payload: {} })}>
          <X /> only the marked part changes
        </Button>
      ) : null}
      <Button variant="ghost" size="sm" className="versions-undo" title="Back to the picture before" disabled={!props.canUndo} onClick={() => callAction({ name: "undo", payload: {} })}>
        <Undo2 /> Undo
      </Button>
    </header>
    <div className="versions-scroll" ref={intoView}>
      <div className="versions-tree" style={size}>
        <svg {...size} aria-hidden="true">{versions.filter(({ from }) => from).map(line)}</svg>
        {versions.map((version) => (
          <button
            key={version.id}
            type="button"
            className="version"
            data-version={version.id}
            aria-current={version.current}
            title={`${version.number}: ${version.words}${HOW[version.how] ? ` (${HOW[version.how]})` : ""}`}
            style={{ left: at(version.place[0]) - SIDE / 2, top: at(version.place[1]) - SIDE / 2, width: SIDE, height: SIDE }}
            onClick={() => callAction({ name: "go_to", payload: { version: version.id } })}
          >
            <img src={version.src} alt={version.words} />
            <span>{version.number}</span>
          </button>
        ))}
      </div>
    </div>
  </section>
);
