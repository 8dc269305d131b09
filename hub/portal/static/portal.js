// Small comforts. Every page works without this file: forms post, links lead, tables can be reloaded.

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
  for (const button of document.querySelectorAll("[data-copy]")) {
    const source = document.getElementById(button.dataset.copy);
    button.addEventListener("click", async () => {
      const copied = await copyText(source).catch(() => false);
      button.textContent = copied ? "Copied" : "Select it";
      announce(copied ? "Copied" : "Could not copy: select the text and copy it");
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
}

// `data-only-when="field=value"` shows a part only while that field has that value.
function addConditions() {
  for (const part of document.querySelectorAll("[data-only-when]")) {
    const form = part.closest("form");
    const [name, value] = part.dataset.onlyWhen.split("=");
    const show = () => { part.hidden = new FormData(form).get(name) !== value; };
    form.addEventListener("change", show);
    show();
  }
}

// Says in words, asked of the Hub's own policy, what the key being made will allow.
function addPreview() {
  const form = document.querySelector("[data-preview]");
  if (!form) return;
  const [rule, matches] = document.querySelectorAll("#preview > p");
  let latest = 0;
  form.addEventListener("change", async () => {
    const asked = ++latest;
    const fields = new URLSearchParams(new FormData(form));
    for (const name of ["csrf_token", "name", "models", "expires"]) fields.delete(name);
    const response = await fetch(`${form.dataset.preview}?${fields}`).catch(() => null);
    if (!response?.ok || asked !== latest) return;
    const preview = await response.json();
    if (asked !== latest) return;
    rule.textContent = preview.rule;
    matches.textContent = preview.matches;
  });
}

// Keeps a table fresh; never while somebody is inside it with the keyboard or selecting text.
function addRefresh() {
  const part = document.querySelector("[data-refresh]");
  if (!part) return;
  let shown = document.getElementById(part.dataset.announce)?.textContent;
  const isBusy = () => document.hidden || part.contains(document.activeElement) || !window.getSelection().isCollapsed;
  const refresh = async () => {
    if (isBusy()) return;
    const response = await fetch(part.dataset.refresh).catch(() => null);
    if (!response?.ok || response.redirected || isBusy()) return;
    part.innerHTML = await response.text();
    const summary = decodeURIComponent(response.headers.get("x-summary") ?? "");
    if (summary && summary !== shown) { announce(summary); shown = summary; }
  };
  setInterval(refresh, 5000);
  document.addEventListener("visibilitychange", refresh);
}

addCopyButtons();
addConditions();
addPreview();
addRefresh();
document.querySelector("[data-focus]")?.focus();
