// Small comforts. Every page works without this file: forms post, links lead, pages can be reloaded.

const REFRESH_MS = 5000;
const announcer = document.getElementById("announcer");

function announce(words) {
  announcer.textContent = "";
  requestAnimationFrame(() => { announcer.textContent = words; });
}

// The clipboard API exists only on https and localhost; a selection and copy works everywhere.
async function copyText(source) {
  const text = source.textContent;
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return true;
  }
  const selection = window.getSelection();
  selection.selectAllChildren(source);
  return document.execCommand("copy");
}

function addCopyButtons() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const copied = await copyText(document.getElementById(button.dataset.copy)).catch(() => false);
    button.textContent = copied ? "Copied" : "Select it";
    announce(copied ? "Copied" : "Could not copy: select the text and copy it");
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

// Calls `follow` now, at every change of the form, and when the browser brings an old page back filled in.
function followForm(form, follow) {
  form.addEventListener("change", follow);
  window.addEventListener("pageshow", follow);
}

// `data-only-when="field=value"` shows a part only while that field has that value.
function addConditions() {
  for (const part of document.querySelectorAll("[data-only-when]")) {
    const form = part.closest("form");
    const [name, value] = part.dataset.onlyWhen.split("=");
    const show = () => { part.hidden = new FormData(form).get(name) !== value; };
    followForm(form, show);
    show();
  }
}

const RULES = ["fleet", "regions", "minimum_trust"];

// Says in words, asked of the Hub's own policy, what the key being made will allow.
function addPreview() {
  const form = document.querySelector("[data-preview]");
  if (!form) return;
  const [rule, matches] = document.querySelectorAll("#preview > p");
  let latest = 0;
  followForm(form, async () => {
    const asked = ++latest;
    const fields = new URLSearchParams(new FormData(form));
    for (const name of [...fields.keys()]) if (!RULES.includes(name)) fields.delete(name);
    const response = await fetch(`${form.dataset.preview}?${fields}`).catch(() => null);
    if (!response?.ok || asked !== latest) return;
    const preview = await response.json();
    if (asked !== latest) return;
    rule.textContent = preview.rule;
    matches.textContent = preview.matches;
  });
}

// A second click while the first is on its way would make a second key.
function sendOnce() {
  for (const form of document.querySelectorAll("form[method=post]")) {
    let sent = false;
    form.addEventListener("submit", (event) => {
      if (sent) event.preventDefault();
      sent = true;
    });
    window.addEventListener("pageshow", () => { sent = false; });
  }
}

// A page that answers a form takes the address of another, so that a reload sends nothing twice.
function takeAddress() {
  const address = document.querySelector("[data-address]")?.dataset.address;
  if (address) history.replaceState(null, "", address);
}

// Never changes what somebody is in the middle of: with the keyboard, or selecting text. Who has copied a command
// has left for a terminal.
function isBusy(part) {
  const active = document.activeElement;
  return (part.contains(active) && !active.matches("[data-copy]")) || !window.getSelection().isCollapsed;
}

function replaceContent(part, fresh) {
  if (part.innerHTML !== fresh.innerHTML && !isBusy(part)) part.replaceChildren(...fresh.childNodes);
}

// Keeps the parts with `data-refresh` fresh: from the page at that address, or from an answer that is the part.
function addRefresh() {
  const parts = [...document.querySelectorAll("[data-refresh]")];
  if (!parts.length) return;
  let shown = document.getElementById(parts[0].dataset.announce)?.textContent;
  const refresh = async () => {
    if (document.hidden) return;
    const response = await fetch(parts[0].dataset.refresh).catch(() => null);
    if (!response?.ok || response.redirected) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of parts) replaceContent(part, page.getElementById(part.id) ?? page.body);
    const summary = decodeURIComponent(response.headers.get("x-summary") ?? "");
    if (summary && summary !== shown) { announce(summary); shown = summary; }
  };
  setInterval(refresh, REFRESH_MS);
  document.addEventListener("visibilitychange", refresh);
}

addCopyButtons();
addConditions();
addPreview();
sendOnce();
takeAddress();
addRefresh();
document.querySelector("[data-focus]")?.focus();
