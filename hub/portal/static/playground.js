// The playground: sends what is typed to the Hub under a key, shows what is waited for, and the answer as it comes.
// The conversation is in this page's memory and nowhere else. All that is shown is set as text, never as markup.

const LOOK_MS = 1000;
const announcer = document.getElementById("announcer");
const at = (id) => document.getElementById(id);

const PHASES = {
  queued: "Queued", cold: "Queued", downloading: "Downloading", loading: "Loading", ready: "Waiting for the first word",
  failed: "The node could not load it",
};
const STATES = {
  ready: "ready", full: "busy", warming: "loading", cold: "loads on demand", unable: "no node takes it now", away: "on no node",
};
// What can be done about an error, by its code. The Hub's own sentence stands before it.
const REMEDIES = {
  no_available_node: "See node by node what refuses, or choose another key, region or model.",
  model_not_found: "Choose another model.",
  model_not_allowed: "Choose another model, or a key that allows this one.",
  model_warming: "It goes on loading: send it again in a while.",
  overloaded: "Send it again in a moment.",
  rate_limit_exceeded: "Send it again in a moment.",
  quota_exceeded: "Choose another key, or have its budget raised.",
  invalid_api_key: "The key was revoked or has expired, or its secret was changed just now. Choose another one.",
  context_length_exceeded: "Begin a new conversation, or send less.",
  unsupported_parameter: "Choose a model that chats.",
  node_lost: "Send it again: another node may answer.",
  engine_error: "Send it again. If it stays, the node's page and porten doctor say more.",
  deadline_exceeded: "Send it again, or ask for a shorter answer.",
};

let messages = [];
let running = null; // the controller of the request under way
let looking = Promise.resolve(); // until it is known which models there are
let models = 0; // counts the questions for models, so that an old answer changes nothing

function announce(words) {
  announcer.textContent = "";
  requestAnimationFrame(() => { announcer.textContent = words; });
}

function element(kind, words = "", className = "") {
  const made = document.createElement(kind);
  if (className) made.className = className;
  if (words) made.textContent = words;
  return made;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (count >= 1024 && step < units.length - 1) { count /= 1024; step += 1; }
  return `${step === 0 || count >= 100 ? count.toFixed(0) : count.toFixed(1)} ${units[step]}`;
}

// ---- who answers ----

function findModels() {
  looking = lookForModels();
}

async function lookForModels() {
  const asked = ++models;
  const select = at("model"), wanted = select.value || select.dataset.wanted;
  const query = new URLSearchParams({ region: at("region").value });
  const response = await fetch(`/playground/${at("key").value}/models?${query}`).catch(() => null);
  if (asked !== models) return;
  if (!response?.ok || response.redirected) {
    at("rule").textContent = "The Hub did not say which models there are. Reload the page.";
    return;
  }
  const found = await response.json();
  if (asked !== models) return;
  at("rule").textContent = found.rule;
  select.replaceChildren(...found.models.map((model) => {
    const option = new Option(`${model.name} (${STATES[model.state] ?? model.state})`, model.id);
    option.selected = model.id === wanted;
    return option;
  }));
  if (!found.models.length) {
    select.append(new Option("None that chats", ""));
    at("rule").textContent += " No model that chats is offered to it: see the Models page.";
  }
}

// ---- what is waited for ----

function showPhase(phase, words = "", percent = null) {
  const name = PHASES[phase] ?? phase;
  if (at("phase").textContent !== name) announce(name);
  at("progress").hidden = false;
  at("phase").textContent = name;
  at("phase-words").textContent = words;
  at("phase-bar").hidden = percent === null;
  if (percent !== null) at("phase-bar").value = percent;
}

async function followWarming(waiting) {
  const query = new URLSearchParams({ model: waiting.model, region: waiting.region });
  while (!waiting.over) {
    const response = await fetch(`/playground/${waiting.key}/warming?${query}`).catch(() => null);
    const told = response?.ok && !response.redirected ? await response.json() : null;
    if (waiting.over) return;
    if (told) {
      const parts = [];
      if (told.percent != null) parts.push(`${bytes(told.bytes_done)} of ${bytes(told.bytes_total)}`, `${told.percent} %`);
      if (told.eta_s != null) parts.push(`about ${Math.ceil(told.eta_s)} s left`);
      showPhase(told.phase, parts.join(", "), told.percent ?? null);
    }
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
}

function endWaiting(waiting) {
  waiting.over = true;
  at("progress").hidden = true;
  at("phase").textContent = "";
}

// ---- the answer ----

function addTurn(role, words) {
  const turn = element("li", "", `turn turn-${role}`);
  turn.append(element("h2", role === "user" ? "You" : "The model", "turn-who"));
  const said = element("div", words, "turn-words");
  turn.append(said);
  at("talk").append(turn);
  return { turn, said };
}

// Lines of server-sent events: data is the engine's, comments are the Hub's own.
async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield line.replace(/\r$/, "");
  }
}

async function readAnswer(response, answer) {
  for await (const line of linesOf(response.body)) {
    const receipt = /^: x-porten-receipt (\S+)$/.exec(line);
    if (receipt) answer.receipt = receipt[1];
    if (!line.startsWith("data:")) continue;
    const data = line.slice(5).trim();
    if (data === "[DONE]") { answer.whole = true; continue; }
    const event = JSON.parse(data);
    if (event.error) throw event.error;
    if (event.usage) answer.usage = event.usage;
    const piece = event.choices?.[0]?.delta?.content;
    if (piece) answer.say(piece);
  }
  if (!answer.whole) throw { code: "node_lost", message: "The answer broke off before its end." };
}

function answerInto(waiting, began) {
  let shown = null;
  return {
    text: "", receipt: null, usage: null, whole: false, firstAt: null, lastAt: null,
    say(piece) {
      if (!shown) {
        endWaiting(waiting);
        shown = addTurn("assistant", "");
        announce("The answer has begun");
        this.firstAt = performance.now();
      }
      this.lastAt = performance.now();
      this.text += piece;
      shown.said.append(piece);
      shown.turn.scrollIntoView({ block: "nearest" });
    },
    // Ends the turn with what is known of it.
    end(facts) { shown?.turn.append(facts); },
    get isShown() { return shown !== null; },
    get ttftMs() { return this.firstAt === null ? null : this.firstAt - began; },
  };
}

function fact(list, name, value) {
  const pair = element("div"), shown = element("dd");
  shown.append(value);
  pair.append(element("dt", name), shown);
  list.append(pair);
  return shown;
}

function speedOf(answer) {
  const count = answer.usage?.completion_tokens, seconds = (answer.lastAt - answer.firstAt) / 1000;
  return count > 1 && seconds > 0 ? `${((count - 1) / seconds).toFixed(1)} tokens/s` : null;
}

function factsOf(answer, response) {
  const list = element("dl", "", "turn-facts");
  const node = response.headers.get("x-porten-node"), region = response.headers.get("x-porten-region");
  const where = { node: fact(list, "Node", node ?? "not told"), region: fact(list, "Region", region ?? "none") };
  if (answer.usage) {
    fact(list, "Tokens", `${answer.usage.prompt_tokens} asked, ${answer.usage.completion_tokens} answered`);
  }
  if (answer.ttftMs !== null) fact(list, "First word", `after ${(answer.ttftMs / 1000).toFixed(2)} s`);
  const speed = speedOf(answer);
  if (speed) fact(list, "Speed", speed);
  const receipt = answer.receipt ?? response.headers.get("x-porten-receipt");
  if (receipt) judge(receipt, where, fact(list, "Receipt", "Being checked…"));
  else fact(list, "Receipt", "The node sends none: it runs an older version.");
  return list;
}

// Asks the Hub whether a receipt holds, and what the node and the region in it are called.
async function judge(receipt, where, shown) {
  const form = new URLSearchParams({ receipt, csrf_token: csrf() });
  const response = await fetch("/playground/verdict", { method: "POST", body: form }).catch(() => null);
  const verdict = response?.ok && !response.redirected ? await response.json() : null;
  shown.replaceChildren(element("span", verdict ? (verdict.holds ? "Holds" : "Does not hold") : "Not checked",
    `pill pill-${verdict?.holds ? "good" : "bad"}`), element("div", verdict?.words ?? "The Hub did not answer.", "hint"));
  const whole = element("details", "", "quiet");
  whole.append(element("summary", "Show it"), element("code", receipt, "receipt"));
  shown.append(whole);
  if (!verdict?.holds) return;
  const name = verdict.node.link ? element("a", verdict.node.name) : element("span", verdict.node.name);
  if (verdict.node.link) name.href = verdict.node.link;
  where.node.replaceChildren(name);
  where.region.textContent = verdict.region;
}

// ---- asking ----

const csrf = () => document.querySelector("input[name=csrf_token]").value;

function requestOf(waiting, signal) {
  const headers = { "content-type": "application/json", "x-csrf-token": csrf() };
  if (waiting.region) headers["x-porten-region"] = waiting.region;
  const body = { model: waiting.model, messages, stream: true, stream_options: { include_usage: true } };
  if (at("longest").value) body.max_tokens = Number(at("longest").value);
  return { method: "POST", headers, body: JSON.stringify(body), signal };
}

async function failureOf(response) {
  if (response.redirected) return { code: "signed_out", message: "You are signed out. Reload the page and sign in." };
  const document = await response.json().catch(() => null);
  if (document?.error) return { ...document.error, retryAfter: response.headers.get("retry-after") };
  return { code: "refused", message: "The Hub did not take it: the page was open for too long. Reload it and send it again." };
}

async function ask(words) {
  messages.push({ role: "user", content: words });
  const mine = addTurn("user", words);
  const waiting = { key: at("key").value, model: at("model").value, region: at("region").value, over: false };
  const answer = answerInto(waiting, performance.now());
  running = new AbortController();
  setBusy(true);
  showPhase("queued");
  followWarming(waiting);
  let response = null;
  try {
    response = await fetch(`/playground/${waiting.key}/chat`, requestOf(waiting, running.signal));
    if (!response.ok || response.redirected) throw await failureOf(response);
    await readAnswer(response, answer);
    finish(answer, response);
  } catch (error) {
    if (running.signal.aborted) stopped(answer, mine, words, response);
    else failed(error, answer, mine, words, waiting);
  } finally {
    endWaiting(waiting);
    running = null;
    setBusy(false);
  }
}

function finish(answer, response) {
  if (!answer.isShown) answer.say("(an empty answer)");
  messages.push({ role: "assistant", content: answer.text });
  answer.end(factsOf(answer, response));
  announce(`The answer is complete. ${answer.text}`);
}

function stopped(answer, mine, words, response) {
  if (!answer.isShown) return takeBack(mine, words, "Stopped.");
  messages.push({ role: "assistant", content: answer.text });
  answer.end(element("p", "You stopped it here.", "hint"));
  if (response) answer.end(factsOf(answer, response));
  announce("Stopped");
}

// What was not answered is not part of the conversation: the words go back to where they can be sent again.
function takeBack(mine, words, said) {
  messages.pop();
  mine?.turn.remove();
  at("message").value = at("message").value || words;
  announce(said);
}

function failed(error, answer, mine, words, waiting) {
  const known = typeof error?.code === "string";
  const said = known ? error.message : "The Hub could not be reached. See whether you are online, and send it again.";
  const notice = element("li", "", "notice notice-bad turn-failed");
  notice.append(element("strong", answer.isShown ? "The answer broke off." : "No answer."), element("p", said));
  const wait = error?.retryAfter ? ` The Hub says to wait ${error.retryAfter} s.` : "";
  const isOver = error?.param === "session"; // not the key is at fault, and what to do is said
  if (known && !isOver && REMEDIES[error.code]) notice.append(element("p", REMEDIES[error.code] + wait));
  if (error?.code === "no_available_node" || error?.code === "model_not_found") notice.append(explainLink(waiting));
  at("talk").append(notice);
  takeBack(answer.isShown ? null : mine, words, `${notice.firstChild.textContent} ${said}`);
  notice.scrollIntoView({ block: "nearest" });
}

function explainLink({ key, model, region }) {
  const link = element("a", "Explain where this key may run");
  link.href = `/keys/${key}/explain?${new URLSearchParams({ model, region })}`;
  const line = element("p");
  line.append(link);
  return line;
}

function setBusy(busy) {
  at("send").hidden = busy;
  at("stop").hidden = !busy;
  at("anew").hidden = busy || !messages.length;
  for (const id of ["key", "region", "model", "longest"]) at(id).disabled = busy;
  if (busy) at("stop").focus();
  else at("message").focus();
}

function clear() {
  messages = [];
  at("talk").replaceChildren();
  at("anew").hidden = true;
  at("message").focus();
  announce("A new conversation");
}

function start() {
  at("ask").addEventListener("submit", async (event) => {
    event.preventDefault();
    await looking; // who is quick sends before the models are known
    const words = at("message").value.trim();
    if (running || !words) return;
    if (!at("model").value) return announce(`There is no model to ask. ${at("rule").textContent}`);
    for (const old of document.querySelectorAll(".turn-failed")) old.remove();
    at("message").value = "";
    ask(words);
  });
  at("message").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    at("ask").requestSubmit();
  });
  at("stop").addEventListener("click", () => running?.abort());
  at("anew").addEventListener("click", clear);
  for (const id of ["key", "region"]) at(id).addEventListener("change", findModels);
  findModels();
}

if (at("playground")) start();
