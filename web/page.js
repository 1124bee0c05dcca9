// The page works without this file, which makes it live. It is loaded twice: by the page, and as a SharedWorker that has
// one stream of events for all windows of a browser, which opens six connections to a host at most.
"use strict";

// Milliseconds for the stream: to open, without a beat, which the server sends every 15 s, and until the next one.
const openTime = 10000, silenceTime = 40000, retryTime = 2000;
const answerTime = 5000, refreshGap = 1000, refreshDelay = 50; // for an answer, between two refreshes, for events that come together
const pastTime = 60000, beatTime = 20000, workerTime = 45000; // between two charts, for a beat, for a report of the worker

// follow keeps a stream open until what it returns is called, and reports "open", "event", "beat" (no event) and "lost".
function follow(report) {
  let events, deadline;
  const heard = (what) => { deadline = Date.now() + silenceTime; report(what); };
  const lose = () => { events.close(); deadline = Date.now() + retryTime; report("lost"); };
  const open = () => {
    deadline = Date.now() + openTime;
    events = new EventSource(new URL("/events", location.origin));
    events.onopen = () => heard("open");
    events.onerror = lose;
    const kinds = "granted released expired forced taken handed superseded removed left abandoned undeclared paused resumed change beat";
    for (const kind of kinds.split(" ")) events.addEventListener(kind, () => heard(kind === "beat" ? kind : "event"));
  };
  open();
  const timer = setInterval(() => { // by the clock: a computer that sleeps does not run its timers
    if (Date.now() >= deadline) events.readyState === EventSource.CLOSED ? open() : lose();
  }, 1000);
  return () => { clearInterval(timer); events.close(); };
}

// share gives the reports of one stream to the windows that have joined. One that has crashed answers no beat, and is removed.
function share() {
  const tabs = new Map(); // the beats that each has not answered
  let stop = null, state = "";
  const leave = (tab) => {
    if (!tabs.delete(tab) || tabs.size > 0) return;
    stop();
    [stop, state] = [null, ""];
  };
  const report = (what) => {
    if (what === "open" || what === "lost") state = what;
    for (const [tab, beats] of tabs) {
      if (what === "beat") tabs.set(tab, beats + 1);
      if (beats < 2) tab.postMessage(what); else leave(tab);
    }
  };
  const join = (tab) => {
    if (!tabs.has(tab) && stop && state) tab.postMessage(state);
    tabs.set(tab, 0);
    if (!stop) stop = follow(report);
  };
  self.onconnect = ({ ports: [tab] }) => { tab.onmessage = ({ data }) => data === "join" ? join(tab) : leave(tab); };
}

const $ = (id) => document.getElementById(id), two = (n) => String(n).padStart(2, "0");
const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const isRefused = (status) => status === 401 || status === 429; // these are for wrong keys only
const page = globalThis.document?.body.dataset;
let skew = 0; // what the server's clock is ahead of this one, in milliseconds
// clock returns a time of day in the reader's zone, with the day unless that is today.
function clock(at, seconds) {
  const text = two(at.getHours()) + ":" + two(at.getMinutes()) + (seconds ? ":" + two(at.getSeconds()) : "");
  if (at.toDateString() === new Date().toDateString()) return text;
  const isNear = Math.abs(at - Date.now()) < 6 * 86400000;
  return at.toLocaleDateString("en", isNear ? { weekday: "short" } : { month: "short", day: "numeric" }) + " " + text;
}

// duration returns milliseconds as pageDuration of the server does.
function duration(ms) {
  const s = Math.max(0, Math.floor(ms / 1000)), m = Math.floor(s / 60), h = Math.floor(m / 60);
  if (m < 5) return m ? m + "m" + two(s % 60) + "s" : s + "s";
  if (m < 60) return m + "m";
  return h < 24 ? h + "h" + two(m % 60) + "m" : Math.floor(h / 24) + "d" + h % 24 + "h";
}

// tick brings durations up to date.
function tick(root) {
  const now = Date.now() + skew;
  for (const e of root.querySelectorAll("[data-ago]")) setText(e, duration(now - new Date(e.dataset.ago)));
  for (const e of root.querySelectorAll("[data-left]")) {
    setText(e, duration(new Date(e.dataset.left) - now));
    e.parentElement.classList.toggle("soon", new Date(e.dataset.left) - now < 600000);
  }
}

// localise shows times in the reader's zone.
function localise(root) {
  for (const e of root.querySelectorAll("time:not(#asof)")) {
    const at = new Date(e.dateTime);
    setText(e, "date" in e.dataset && page.since === "7d" ? clock(at).replace(/ ..:..$/, "") : clock(at));
    e.title = at.toLocaleString("en-GB");
  }
  for (const e of root.querySelectorAll("[data-hours]")) {
    const isWork = (t) => t.getDay() % 6 !== 0 && t.getHours() >= 9 && t.getHours() < 17;
    const busy = e.dataset.hours.split(" ").map(Number).filter((_, i) => isWork(new Date(Date.parse(e.dataset.from) + i * 3600000)));
    setText(e, Math.floor(busy.reduce((a, b) => a + b, 0) / (busy.length || 1)) + " %");
  }
  tick(root);
}

// drawTicks draws midnights, and for a day each sixth hour, of the reader's zone.
function drawTicks() {
  const now = Date.now() + skew, hours = page.since === "7d" ? 168 : 24, step = hours === 24 ? 6 : 24, from = now - hours * 3600000;
  let lines = "", texts = "";
  for (const t = new Date(from); t.setHours(t.getHours() + step - t.getHours() % step, 0, 0, 0) < now;) {
    const share = (t - from) / (now - from), day = t.toLocaleDateString("en", { weekday: "short" });
    lines += `<line x1="${2000 * share}" x2="${2000 * share}" y1="0" y2="1"/>`;
    texts += `<text x="${100 * share}%" y="11">${step === 24 ? day : two(t.getHours()) + ":00"}</text>`;
  }
  $("ticks").innerHTML = lines;
  if ($("axis")) $("axis").innerHTML = texts;
}

// key returns what an element does: one that does something else replaces it.
function key(e) {
  if (e.nodeName === "FORM") return new URLSearchParams(new FormData(e)).toString();
  return e.nodeName === "A" || e.nodeName === "BUTTON" ? e.getAttribute("href") + e.getAttribute("aria-label") : "";
}

// morph makes an element what a fresh one is, and keeps all that is the same, with its focus and its selection.
function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName || key(old) !== key(fresh)) return old.replaceWith(fresh);
  if (old.nodeType !== Node.ELEMENT_NODE) return old.data === fresh.data || (old.data = fresh.data);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  if ("keep" in fresh.dataset) return;
  const next = [...fresh.childNodes], now = [...old.childNodes].filter((n) => !n.dataset || !("local" in n.dataset));
  next.forEach((n, i) => { if (now[i]) morph(now[i], n); else old.append(n); });
  now.slice(next.length).forEach((n) => n.remove());
}

const held = new Map(); // by id: fresh parts for those that must stay as they are for a moment
// put shows a fresh part of the page in the place of the old one, unless some of it is selected.
function put(fresh) {
  const old = $(fresh.id), selected = getSelection();
  held.delete(fresh.id);
  if (!old) return void (fresh.nodeName === "TBODY" && $("table").append(fresh));
  if (!selected.isCollapsed && selected.getRangeAt(0).intersectsNode(old)) held.set(fresh.id, fresh);
  old.classList.toggle("stale", held.has(fresh.id));
  if (held.has(fresh.id)) return;
  const had = old.contains(document.activeElement) && document.activeElement;
  morph(old, fresh);
  if (had && !had.isConnected) $(old.id)?.querySelector("a, button")?.focus({ preventScroll: true });
}

// apply shows an answer of the server. It reports whether that was of the page.
function apply(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html"), body = fresh.body, isOne = Boolean(page.environment);
  if (isOne ? !fresh.getElementById("events") : body.id !== "rows") return false;
  localise(body);
  for (const part of body.querySelectorAll("[data-part]")) put(part);
  if (!isOne) {
    skew = new Date(body.dataset.now) - Date.now();
    $("table").dataset.serial = body.dataset.serial;
    if (body.dataset.order) arrange($("table").tBodies, body.dataset.order.split(" "));
  }
  title = isOne ? fresh.title : $("above").dataset.title;
  filter();
  noteGrants();
  return true;
}

// arrange puts the rows of the table in the order of their ids, and removes the others.
function arrange(rows, ids) {
  [...rows].filter((row) => !ids.includes(row.id)).forEach((row) => row.remove());
  ids.forEach((id, i) => { if ($(id) && rows[i] !== $(id)) rows[i].before($(id)); });
}

// filter shows the rows that the address selects.
function filter() {
  const table = $("table"), q = new URLSearchParams(location.search), show = q.get("show"), text = (q.get("q") || "").trim().toLowerCase();
  if (!table) return;
  for (const row of table.tBodies) {
    const all = [...row.querySelectorAll("th, .who, .queue, [title]")].map((e) => e.textContent + " " + e.title).join(" ");
    row.hidden = Boolean(show && !row.dataset.show.split(" ").includes(show) || text && !all.toLowerCase().includes(text));
  }
  const found = [...table.tBodies].some((row) => !row.hidden);
  $("none").hidden = found || !table.tBodies.length;
  for (const a of document.querySelectorAll("#counts a")) a.ariaCurrent = a.dataset.show === (show || "") ? "page" : null;
}

// select changes the address without loading it.
function select(name, value) {
  const q = new URLSearchParams(location.search);
  if (value) q.set(name, value); else q.delete(name);
  history.replaceState(null, "", location.pathname + (q.size ? "?" + q : ""));
  filter();
}

// send sends one request, to a URL without the key that the address of the page may have. Status 0 means: no answer.
async function send(method, path, form) {
  const late = AbortSignal.timeout(answerTime);
  try {
    const headers = { "X-Requested-With": "call-me" }; // else the browser would ask for a login
    const answer = await fetch(new URL(path, location.origin), { method, headers, body: form && new URLSearchParams(form), signal: late });
    const text = await answer.text();
    let json = {};
    try { json = JSON.parse(text); } catch { /* it is a page */ }
    const refused = isRefused(answer.status) && "the key is not accepted any more: log in again";
    return { status: answer.status, text, json, problem: answer.ok ? "" : refused || json.message || `the server answers ${answer.status}` };
  } catch {
    return { status: 0, text: "", json: {}, problem: late.aborted ? "the server does not answer" : "connection lost" };
  }
}

let stream = "", opened = 0; // what is known of the stream: "open", "lost" or, at first, nothing; when it opened
let current = false; // a refresh that began after that has succeeded: nothing was missed
let problem = "", needsLogin = false, shown = new Date(); // of the last refresh: what is wrong; as of when the page is
// showConnection shows that the page is live, or what is wrong and how old the page is.
function showConnection() {
  let kind = "off", text;
  if (needsLogin) text = "the key is not accepted any more, as of";
  else if (problem || stream === "lost") text = `${problem || "connection lost"}, trying again; as of`;
  else if (stream === "open" && current && !isIdle()) [kind, text] = ["on", "live ·"];
  else [kind, text] = ["", isIdle() ? "paused, as of" : "connecting, as of"];
  $("state").className = "state " + kind;
  document.body.classList.toggle("lost", kind === "off");
  setText($("asof"), clock(shown, true));
  setText($("connection"), text); // only a change: screen readers read it aloud
  $("again").hidden = !needsLogin;
}

let timer = 0, started = -refreshGap, refreshing = false, again = false, pastAt = performance.now();
// scheduleRefresh refreshes the page in a moment, but no more than once a second.
function scheduleRefresh() {
  if (timer) return;
  timer = setTimeout(() => { timer = 0; refresh(); }, Math.max(refreshDelay, started + refreshGap - performance.now()));
}

// refresh takes what has changed. While it waits for the answer, one more refresh is remembered.
async function refresh() {
  if (refreshing) return void (again = true);
  refreshing = true;
  started = performance.now();
  const sent = new Date(), q = new URLSearchParams(location.search), withPast = started - pastAt > pastTime;
  q.delete("act");
  if (!page.environment) q.set("after", $("table").dataset.serial);
  if (!page.environment && withPast) q.set("past", "1");
  try {
    const answer = await send("GET", (page.environment ? "/?" : "/rows?") + q);
    needsLogin = isRefused(answer.status);
    problem = answer.problem;
    if (answer.status && problem && answer.json.message) problem = `the server answers ${answer.status}, ${answer.json.message}`;
    if (answer.status === 200 && !apply(answer.text)) problem = "the answer is not the status page";
    if (needsLogin || isIdle()) stopStream(); else startStream();
    if (!problem) [shown, current, pastAt] = [sent, started >= opened, withPast ? started : pastAt];
    if (withPast) drawTicks();
  } finally {
    refreshing = false;
    showConnection();
    if (again) { again = false; scheduleRefresh(); }
  }
}

let stop = null, worker = null; // what ends the stream; what has the stream for all windows
let sharing = "SharedWorker" in globalThis, beatTimer = 0, workerTimer = 0;
// isIdle reports whether nobody sees the page: one that waits in a queue is not idle.
function isIdle() { return document.hidden && !document.querySelector("[data-waits]"); }

// startStream follows the server's events while the page is not idle.
function startStream() {
  if (stop || isIdle()) return;
  if (!sharing) return void (stop = follow(onReport));
  if (!worker) {
    worker = new SharedWorker(new URL("/page.js", location.origin));
    worker.port.onmessage = (event) => onReport(event.data);
    worker.onerror = stopSharing;
  }
  worker.port.postMessage("join");
  stop = () => worker.port.postMessage("leave");
  workerTimer = setTimeout(stopSharing, workerTime);
}

function stopStream() {
  [beatTimer, workerTimer].forEach(clearTimeout);
  stop?.();
  [stop, stream] = [null, ""];
}

// stopSharing is for a worker that cannot be started, or that has died: the page follows the events by itself.
function stopSharing() {
  stopStream();
  [sharing, stream] = [false, "lost"];
  startStream();
  showConnection();
}

// onReport takes what follow reports. After a beat it refreshes too: whether a waiter is away changes without an event.
function onReport(what) {
  if (!stop) return; // on its way when the stream was stopped
  clearTimeout(beatTimer);
  beatTimer = setTimeout(scheduleRefresh, beatTime); // does the server still answer?
  clearTimeout(workerTimer);
  if (sharing) workerTimer = setTimeout(stopSharing, workerTime);
  if (sharing && what === "beat") worker.port.postMessage("join"); // the page is still here
  if (what === "open" || what === "lost") stream = what;
  if (what === "open") [opened, current] = [performance.now(), false];
  scheduleRefresh();
  showConnection();
}

function onVisibility() {
  if (isIdle()) stopStream(); else startStream();
  if (!document.hidden) scheduleRefresh();
  showConnection();
}

let title = globalThis.document?.title, granted = []; // the slots that have come from a queue and are not confirmed yet
// noteGrants tells the viewer of a slot that has come: by the title, the icon and a notification.
function noteGrants() {
  const claims = [...document.querySelectorAll("[data-claim]")].map((e) => e.dataset.claim);
  for (const name of claims.filter((c) => !granted.includes(c))) {
    setText($("done"), `${name} is yours: keep it, or it is released in 5 minutes`);
    if (document.hidden && globalThis.Notification?.permission === "granted") new Notification($("done").textContent, { tag: name });
  }
  granted = claims;
  document.title = claims.length ? `● ${claims[0]} is yours` : title;
  $("icon").href = $("icon").href.replace(/%23(2f6f5e|b3261e)/, claims.length ? "%23b3261e" : "%232f6f5e");
}

let subject = null; // the part of the page that the open dialog is about
// say shows at a row, or in the open dialog about it, what is wrong.
function say(part, text) {
  const inDialog = $("dialog").open && subject === part && $("dialog").querySelector(".problem");
  let place = inDialog || $("said");
  if (!inDialog && part?.nodeName === "TBODY" && part.isConnected) {
    const row = part.insertRow();
    place = row.insertCell();
    [row.className, row.dataset.local, place.colSpan, place.role] = ["problem", "", 7, "alert"];
  }
  place.replaceChildren(document.createElement("bdi"));
  place.firstChild.textContent = text;
}

function unsay(part) { [...$("said").childNodes, ...(part?.querySelectorAll("[data-local]") || [])].forEach((e) => e.remove()); }

// openAct shows in a dialog the form that a link leads to.
async function openAct(link) {
  const part = $("dialog").contains(link) ? subject : link.closest("[data-part]");
  unsay(part);
  const answer = await send("GET", link.getAttribute("href"));
  const act = answer.status === 200 && new DOMParser().parseFromString(answer.text, "text/html").getElementById("act");
  if (!act) return say(part, answer.problem || "the answer is not the status page");
  localise(act);
  subject = part;
  $("dialog").replaceChildren(act);
  if (!$("dialog").open) $("dialog").showModal();
  act.querySelector("input:not([type=hidden]), select")?.focus();
}

// submit sends a form. Its button is disabled until the answer has come.
async function submit(form) {
  const button = form.querySelector("button"), part = $("dialog").contains(form) ? subject : form.closest("[data-part]");
  if (button.disabled) return;
  button.disabled = true;
  unsay(part);
  if (form.elements.act.value === "wait") globalThis.Notification?.requestPermission?.();
  const answer = await send("POST", "/act", new FormData(form));
  button.disabled = false;
  scheduleRefresh();
  if (answer.problem) return say(part, answer.status ? answer.problem : answer.problem + "; try again");
  if ($("dialog").contains(form)) $("dialog").close();
  setText($("done"), answer.json.done);
}

function onClick(event) {
  const link = event.target.closest?.("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if ("act" in link.dataset) openAct(link);
  else if ("close" in link.dataset && $("dialog").open) $("dialog").close();
  else if (link.closest("#counts") && $("table")) select("show", link.dataset.show);
  else return;
  event.preventDefault();
}

function begin() {
  document.addEventListener("visibilitychange", onVisibility);
  addEventListener("pagehide", stopStream);
  addEventListener("pageshow", (event) => { if (event.persisted) onVisibility(); });
  document.addEventListener("selectionchange", () => { if (held.size) { [...held.values()].forEach(put); filter(); } });
  document.addEventListener("click", onClick);
  document.addEventListener("keyup", (event) => { if (event.key === "/" && !event.target.closest("input, dialog")) $("filter")?.elements.q.focus(); });
  document.addEventListener("submit", (event) => {
    if (event.target.id === "filter" && $("table").dataset.more !== "0") return; // the server finds the others, too
    event.preventDefault();
    if (event.target.id !== "filter") submit(event.target);
  });
  $("filter")?.addEventListener("input", (event) => select("q", event.target.value));
  setInterval(() => tick(document), 1000);
  $("again").href = new URL(location.pathname + location.search, location.origin);
  localise(document);
  $("zone").textContent = `yours (${Intl.DateTimeFormat().resolvedOptions().timeZone}, ${new Date().toLocaleTimeString("en", { timeZoneName: "shortOffset" }).split(" ").pop()})`;
  drawTicks();
  filter();
  noteGrants();
  startStream();
  showConnection();
}

if (globalThis.SharedWorkerGlobalScope) share(); else begin();
