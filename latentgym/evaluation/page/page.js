// The page of results: a table that sorts and filters, runs, and answers side by side.
// Texts of models and users only ever become text nodes, never markup.

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; children that are no elements become text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  return fill(element, children);
}

/** Put children, lists of them among them, in the place of what an element has; null is none. */
function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

/** The text of a compressed block of this page. */
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(byId(id).textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const runs = JSON.parse(await unpacked("runs"));
const byName = new Map(runs.map((run) => [run.id, run]));
const loaded = new Map();

/** The answers of a run, by question and seed. */
function answersOf(run) {
  if (!run.answers) return Promise.resolve([]);
  if (!loaded.has(run.id)) loaded.set(run.id, unpacked(run.answers).then(JSON.parse));
  return loaded.get(run.id);
}

// ---------------------------------------------------------------- state in the address

const DEFAULTS = { sort: "", search: "", columns: "", run: "", question: "", seed: "", with: "" };
const FILTERS = [...document.querySelectorAll("[data-filter]")];
let state = {};

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  state = Object.fromEntries(
    [...Object.keys(DEFAULTS), ...FILTERS.map((f) => f.dataset.filter)].map((key) => [key, given.get(key) ?? ""]),
  );
}

/** Change the view; a view that a reader may want to go back to is a new entry of the history. */
function go(change, entry = false) {
  Object.assign(state, change);
  const kept = Object.entries(state).filter(([, value]) => value !== "");
  const address = "#" + new URLSearchParams(kept).toString();
  if (address === (location.hash || "#")) return;
  history[entry ? "pushState" : "replaceState"](null, "", address);
}

// ---------------------------------------------------------------- the table

let table = null;
const COLUMNS = [...byId("results").querySelectorAll("thead th")].map((th) => th.dataset.name);
const SHOWN = [...byId("results").querySelectorAll("thead th")].map((th) => th.dataset.shown !== undefined);

async function startTable() {
  const url = URL.createObjectURL(new Blob([await unpacked("datatables")], { type: "text/javascript" }));
  const { default: DataTable } = await import(url);
  URL.revokeObjectURL(url);
  const [by, direction] = state.sort.split(".");
  const at = COLUMNS.indexOf(by);
  const columns = state.columns ? state.columns.split(",") : null;
  table = new DataTable(byId("results"), {
    autoWidth: false,
    paging: runs.length > 200,
    pageLength: 100,
    lengthMenu: [50, 100, 500, { label: "all", value: -1 }],
    order: at < 0 ? [] : [[at, direction === "asc" ? "asc" : "desc"]],
    search: { search: state.search },
    columnDefs: [
      { targets: COLUMNS.map((_, i) => i).filter((i) => !(columns ? columns.includes(COLUMNS[i]) : SHOWN[i])), visible: false },
      { targets: "_all", orderSequence: ["desc", "asc", ""] },
    ],
    layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: runs.length > 200 ? ["pageLength", "paging"] : null },
    language: { info: `_TOTAL_ ${runs.length === 1 ? "run" : "runs"}`, infoFiltered: " of _MAX_", infoEmpty: "no runs", zeroRecords: "no run is like that" },
  });
  table.on("order", () => {
    const [first] = table.order();
    go({ sort: first && first[1] ? `${COLUMNS[first[0]]}.${first[1]}` : "" });
  });
  byId("search").value = state.search;
  byId("search").addEventListener("input", (event) => {
    table.search(event.target.value).draw();
    go({ search: event.target.value });
  });
  for (const box of document.querySelectorAll("#columns input")) {
    box.checked = table.column(COLUMNS.indexOf(box.value)).visible();
    box.addEventListener("change", () => {
      table.column(COLUMNS.indexOf(box.value)).visible(box.checked);
      go({ columns: COLUMNS.filter((_, i) => table.column(i).visible()).join(",") });
    });
  }
  table.search.fixed("chosen", (_, data, index) => {
    const row = runs[index];
    return FILTERS.every((f) => {
      const wanted = state[f.dataset.filter];
      return wanted === "" || row.chosen_by[f.dataset.filter] === wanted;
    });
  });
  for (const filter of FILTERS) {
    filter.value = state[filter.dataset.filter];
    filter.addEventListener("change", () => {
      go({ [filter.dataset.filter]: filter.value });
      table.draw();
    });
  }
  table.draw();
  byId("download").addEventListener("click", download);
}

/** The rows that are shown, with all columns, as a file. */
function download() {
  const quote = (text) => `"${text.replaceAll('"', '""')}"`;
  const shown = table.rows({ search: "applied", order: "applied" }).indexes().toArray();
  const lines = shown.map((index) => COLUMNS.map((name) => quote(String(runs[index].values[name] ?? ""))).join(","));
  const text = [COLUMNS.map(quote).join(","), ...lines].join("\r\n") + "\r\n";
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "results.csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

// ---------------------------------------------------------------- a run

const percent = (share) => `${(100 * share).toFixed(2)} %`;
const linkTo = (change, text, attributes = {}) =>
  make("a", { href: "#", ...attributes, onclick: (event) => { event.preventDefault(); go(change, true); show(); } }, text);

async function showRun(run) {
  const close = runs.length > 1 ? make("button", { type: "button", onclick: () => { go({ run: "", question: "", seed: "", with: "" }, true); show(); } }, "close") : null;
  fill(byId("named"), `${run.id} `, make("small", {}, run.label), " ", close);
  fill(byId("questions"), make("p", {}, run.answers ? "reading answers ..." : "no answers are on this page"));
  const settings = make("dl", {}, run.settings.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  const command = run.command ? make("pre", {}, make("code", {}, run.command)) : null;
  const training = run.curves ? make("details", { open: true }, make("summary", {}, "training")) : null;
  fill(byId("about"), command, training, make("details", {}, make("summary", {}, "settings and numbers"), settings));
  byId("run").hidden = false;
  if (training) {
    const drawn = make("template");
    drawn.innerHTML = await unpacked(run.curves); // pictures and captions that this library made
    training.append(drawn.content);
  }
  const answers = await answersOf(run);
  if (!answers.length || state.run !== run.id) return;
  const seeds = run.seeds.length > 1;
  const marks = answers.map((a) => make("tr", { "data-answer": `${a.index} ${a.seed}` },
    make("td", {}, linkTo({ question: String(a.index), seed: String(a.seed) }, String(a.index), { "aria-label": `question ${a.index}, seed ${a.seed}` })),
    seeds ? make("td", {}, String(a.seed)) : null,
    make("td", { class: a.score >= 1 ? "right" : a.score > 0 ? "part" : "wrong" }, a.score >= 1 ? "right" : a.score > 0 ? String(a.score) : "wrong"),
    make("td", {}, a.parsed ?? (a.status ?? "")),
    make("td", {}, a.target ?? ""),
    make("td", { class: "long", title: a.question ?? "" }, a.question ?? "")));
  const head = ["question", seeds ? "seed" : null, "score", "answer", "gold", "text"].filter(Boolean).map((name) => make("th", { scope: "col" }, name));
  const more = run.left_out ? make("p", {}, `The page has the first ${answers.length} of ${answers.length + run.left_out} answers.`) : null;
  fill(byId("questions"), more,
    make("div", { class: "scroll", tabindex: "0" }, make("table", {}, make("caption", {}, "choose one to see what was thought"),
      make("thead", {}, make("tr", {}, head)), make("tbody", {}, marks))));
}

// ---------------------------------------------------------------- a question, side by side

const FEW = 12; // runs that are offered without asking

/** Runs that answered the same questions: these can stand beside each other. */
const comparable = (run) => runs.filter((other) => other.answers && other.questions === run.questions);

async function showQuestion(run, index, seed) {
  const panel = byId("question");
  const beside = state.with.split(",").map((id) => byName.get(id)).filter((r) => r && r !== run && r.questions === run.questions);
  const columns = await Promise.all([run, ...beside].map(async (one) => {
    const all = (await answersOf(one)).filter((a) => a.index === index);
    return [one, all.find((a) => a.seed === seed) ?? all[0]];
  }));
  if (state.run !== run.id || (state.question || String(index)) !== String(index)) return;
  const [, first] = columns[0];
  for (const row of document.querySelectorAll("#questions tr")) row.classList.toggle("open", first !== undefined && row.dataset.answer === `${first.index} ${first.seed}`);
  const others = comparable(run).filter((other) => other !== run).map((other) => make("label", {},
    make("input", { type: "checkbox", value: other.id, checked: beside.includes(other), onchange: (event) => {
      const chosen = new Set(beside.map((r) => r.id));
      if (event.target.checked) chosen.add(other.id); else chosen.delete(other.id);
      go({ with: [...chosen].join(",") }, true);
      show();
    } }), " ", `${other.id} (${other.label})`));
  fill(panel,
    make("h2", { tabindex: "-1" }, `question ${index}`),
    first ? make("p", { class: "asked" }, first.question ?? "") : make("p", {}, "there is no answer to it on this page"),
    first ? make("p", {}, "gold: ", make("b", {}, first.target ?? "")) : null,
    others.length ? make("details", { open: others.length <= FEW }, make("summary", {}, `beside it (${others.length} other runs)`), make("div", { class: "chosen" }, others)) : null,
    make("div", { class: "columns" }, columns.map(([one, answer]) => answerOf(one, answer))));
  panel.hidden = false;
}

const KINDS = { thought: "thoughts, as text", answer: "answer", tool_call: "tool call", tool_response: "tool response", forced_prompt: "forced prompt" };

function answerOf(run, answer) {
  const title = make("h3", {}, `${run.id} `, make("small", {}, run.label));
  if (!answer) return make("article", {}, title, make("p", {}, "no answer on this page"));
  const verdict = answer.score >= 1 ? "right" : answer.score > 0 ? `score ${answer.score}` : "wrong";
  const parts = Object.entries(answer.components ?? {}).map(([name, value]) => `${name} ${value}`).join(", ");
  const why = `read as ${answer.parsed === null || answer.parsed === "" ? "nothing" : `“${answer.parsed}”`}` +
    (answer.status && answer.status !== "ok" ? ` (${answer.status})` : "") + (parts ? `; ${parts}` : "");
  return make("article", {}, title,
    make("p", {}, make("b", { class: answer.score >= 1 ? "right" : "wrong" }, verdict), `, ${why}`),
    make("p", {}, `${answer.n_thoughts ?? 0} thoughts, ${answer.n_tokens ?? 0} tokens` + (answer.truncated ? ", out of budget" : "")),
    answer.steps ? thoughtsOf(answer.steps) : make("p", { class: "flat" }, answer.thoughts ?? ""),
    answer.steps && answer.left_out ? make("p", {}, `... and ${answer.left_out} more thoughts`) : null,
    make("div", { class: "said" }, (answer.segments ?? [{ kind: "answer", text: answer.completion ?? "" }]).map((part) =>
      make("span", { class: `segment ${part.kind}` }, make("small", {}, KINDS[part.kind] ?? part.kind), part.text))));
}

const LEAST = 0.005; // weight of a token that is shown; the heaviest always is

/** Each thought: its heaviest tokens, shaded by weight, and its numbers; plain tokens run on as text does. */
function thoughtsOf(steps) {
  const plain = steps.every((step) => step.tokens.length === 1);
  const label = "thoughts, the heaviest tokens of each";
  return make("ol", { class: plain ? "thoughts plain" : "thoughts", tabindex: "0", "aria-label": label }, steps.map((step, i) => {
    const numbers = [["norm", step.norm], ["entropy", step.entropy], ["gate", step.gate]]
      .filter(([, value]) => value !== undefined && value !== null).map(([name, value]) => `${name} ${Number(value).toFixed(2)}`);
    const chips = step.tokens.map((token, j) => {
      const weight = Number(step.weights[j]) || 0;
      if (j > 0 && weight < LEAST) return null;
      return make("span", { class: "chip", style: `--weight:${Math.max(0, Math.min(1, weight)).toFixed(3)}`, title: `token ${step.ids?.[j] ?? ""}` },
        visible(token), plain ? null : make("small", {}, weight.toFixed(2)));
    });
    return make("li", { title: plain ? `${i + 1}: ${numbers.join(", ")}` : null },
      make("span", { class: "step" }, String(i + 1)), chips, make("small", { class: "numbers" }, numbers.join(" · ")));
  }));
}

/** Spaces and line breaks of a token, as one can see them. */
const visible = (text) => text === "" ? "∅" : text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");

// ---------------------------------------------------------------- what is shown

/** What the address says: a run with one of its questions, the first unless one is chosen. */
async function show(moved = true) {
  const run = byName.get(state.run);
  for (const row of document.querySelectorAll("#results tr.open")) row.classList.remove("open");
  byId("question").hidden = true;
  if (!run) byId("run").hidden = true;
  else {
    document.querySelector(`#results a[data-run="${CSS.escape(run.id)}"]`)?.closest("tr")?.classList.add("open");
    await showRun(run);
    const [first] = await answersOf(run);
    const chosen = Number.parseInt(state.question, 10);
    const index = Number.isNaN(chosen) ? first?.index : chosen;
    if (index !== undefined) await showQuestion(run, index, Number.parseInt(state.seed, 10) || run.seeds[0]);
  }
  if (!moved) return;
  const opened = run && state.question ? byId("question") : run ? byId("run") : byId("top");
  opened.querySelector("h1, h2")?.focus({ preventScroll: true });
  const { top } = opened.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) opened.scrollIntoView({ block: "start" });
}

byId("results").addEventListener("click", (event) => {
  const link = event.target.closest("a[data-run]");
  if (!link) return;
  event.preventDefault();
  go({ run: link.dataset.run, question: "", seed: "", with: "" }, true);
  show();
});
addEventListener("popstate", () => { readAddress(); show(); });

const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = () => document.documentElement.classList.toggle("dark", dark.matches);
dark.addEventListener("change", theme);
theme();
readAddress();
await startTable();
if (state.run) await show();
else if (runs.length === 1) {
  state.run = runs[0].id;
  await show(false); // a page of one run opens on its answers
}
document.documentElement.dataset.ready = "yes";
