// The page works without this: it is what makes it live, and lets people act.
"use strict";

const live = document.getElementById("live");
const connection = document.getElementById("connection");
const failure = document.getElementById("failure");
const reserve = document.getElementById("reserve");
const confirmation = document.getElementById("confirm");
const user = document.body.dataset.user;

const answerTime = 5000; // milliseconds for an answer
const refreshGap = 1000; // between two refreshes
const refreshDelay = 50; // before the first one, for events that come together
const pollTime = 30000; // between two refreshes without an event: durations grow
const beatTime = 20000; // for a beat, which the server sends each 15 s
const workerTime = 45000; // for a report of the worker, which reports the loss of the stream

const releasing = new Set(); // fences of the leases that are being released

// localise shows times in the reader's zone, and the buttons.
function localise() {
  for (const time of live.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    const clock = { hour: "2-digit", minute: "2-digit" };
    time.textContent = at.toLocaleString([], today ? clock : { month: "short", day: "numeric", ...clock });
    time.title = at.toLocaleString();
  }
  for (const actions of live.querySelectorAll(".actions")) {
    const button = actions.querySelector("button");
    actions.hidden = !user && button.dataset.act !== "force";
    button.disabled = button.dataset.act === "release" && releasing.has(button.dataset.fence);
  }
}

// isolate returns an element with a text of somebody else's. Whatever the
// direction of its letters, the text around it stays as it is.
function isolate(text) {
  const element = document.createElement("bdi");
  element.textContent = text;
  return element;
}

// slotName returns the nodes that name the slot of a button's data.
function slotName({ environment, slot }) {
  return slot === environment ? [isolate(slot)] : [isolate(environment), ", ", isolate(slot)];
}

// send sends one request. The URL is without the user name and the key that the
// address of the page may have: fetch refuses those. A status of 0 means that
// no answer has come; problem then says why, else what the server says.
async function send(method, path) {
  const late = AbortSignal.timeout(answerTime);
  try {
    // The header keeps the browser from asking for a login: the page says that it is needed.
    const headers = { "X-Requested-With": "call-me" };
    const answer = await fetch(new URL(path, location.origin), { method, headers, signal: late });
    const text = await answer.text();
    return { status: answer.status, text, problem: answer.ok ? "" : messageOf(text) };
  } catch {
    const problem = late.aborted ? "the server does not answer" : "connection lost";
    return { status: 0, text: "", problem };
  }
}

function messageOf(text) {
  try {
    return JSON.parse(text).message || "";
  } catch { // a proxy has answered
    return "";
  }
}

// keyRefused reports whether the status is for wrong keys only.
function keyRefused(status) { return status === 401 || status === 429; }

// What showConnection shows.
let stream = ""; // what is known of the stream: "open", "lost" or, at first, nothing
let opened = 0; // when the stream opened
let current = false; // a refresh that began after that has succeeded: nothing was missed
let problem = ""; // of the last refresh
let needsLogin = false;
let shown = new Date(); // as of when the page is
let shownText = "";

// showConnection shows that the page is live, or what is wrong and how old the page is.
function showConnection() {
  const state = "this is the state of " + shown.toLocaleTimeString();
  let kind = "off", text;
  if (needsLogin) {
    text = "the key is not accepted any more: ";
  } else if (problem || stream === "lost") {
    text = `${problem || "connection lost"}: ${state}; trying again`;
  } else if (stream === "open" && current && !document.hidden) {
    [kind, text] = ["on", "live"];
  } else {
    [kind, text] = ["", `${document.hidden ? "paused" : "connecting"}: ${state}`];
  }
  if (text === shownText) return; // screen readers read every change aloud
  shownText = text;
  connection.className = kind;
  connection.textContent = text;
  if (needsLogin) {
    const link = document.createElement("a");
    link.href = new URL(location.pathname + location.search, location.origin);
    link.textContent = "log in again";
    connection.append(link, "; " + state);
  }
}

let timer = 0, started = -refreshGap, refreshing = false, again = false;

// scheduleRefresh refreshes the page in a moment, but no more than once a second.
function scheduleRefresh() {
  if (timer) return;
  const delay = Math.max(refreshDelay, started + refreshGap - performance.now());
  timer = setTimeout(() => { timer = 0; refresh(); }, delay);
}

// refresh takes what the server shows now. While it waits for the answer, one
// more refresh is remembered.
async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  started = performance.now();
  const sent = new Date();
  try {
    show(await send("GET", location.pathname + location.search), sent);
  } finally {
    refreshing = false;
    showConnection();
    if (again) { again = false; scheduleRefresh(); }
  }
}

// show shows the answer to a refresh, or notes what is wrong with it.
function show(answer, sent) {
  needsLogin = keyRefused(answer.status);
  if (needsLogin) stopStream(); else startStream();
  if (answer.status === 0) {
    problem = answer.problem;
  } else if (answer.status !== 200) {
    problem = `the server answers ${answer.status}` + (answer.problem && `, ${answer.problem}`);
  } else {
    problem = "the answer is not the status page";
    if (!replace(answer.text)) return;
    problem = "";
    shown = sent;
    current = started >= opened;
  }
}

// replace shows the parts of the page that change, and leaves the rest of it,
// what is focused and the open dialog alone. It reports whether the text was
// the status page.
function replace(text) {
  const next = new DOMParser().parseFromString(text, "text/html");
  const nextLive = next.getElementById("live"), nextKnown = next.getElementById("known");
  if (!nextLive || !nextKnown) return false;
  const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
  live.replaceChildren(...nextLive.childNodes);
  document.getElementById("known").replaceChildren(...nextKnown.childNodes);
  localise();
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  return true;
}

let stop = null; // ends the stream
let worker = null; // has the stream for all tabs
let sharing = "SharedWorker" in window;
let beatTimer = 0, workerTimer = 0;

// startStream follows the server's events while the page is visible.
function startStream() {
  if (stop || document.hidden) return;
  if (!sharing) { stop = follow(onReport); return; }
  if (!worker) {
    worker = new SharedWorker(new URL("/events.js", location.origin));
    worker.port.onmessage = (event) => onReport(event.data);
    worker.onerror = stopSharing;
  }
  worker.port.postMessage("join");
  stop = () => worker.port.postMessage("leave");
  workerTimer = setTimeout(stopSharing, workerTime);
}

function stopStream() {
  clearTimeout(beatTimer);
  clearTimeout(workerTimer);
  if (stop) stop();
  stop = null;
  stream = "";
}

// stopSharing is for a worker that cannot be started, or that has died: the
// page follows the events by itself.
function stopSharing() {
  sharing = false;
  stopStream();
  startStream();
  stream = "lost";
  showConnection();
}

// onReport takes what follow reports.
function onReport(what) {
  if (!stop) return; // on its way when the stream was stopped
  clearTimeout(beatTimer);
  beatTimer = setTimeout(scheduleRefresh, beatTime); // does the server still answer?
  if (sharing) {
    clearTimeout(workerTimer);
    workerTimer = setTimeout(stopSharing, workerTime);
    if (what === "beat") worker.port.postMessage("join"); // the page is still here
  }
  if (what === "open" || what === "lost") stream = what;
  if (what === "open") {
    opened = performance.now();
    current = false;
  }
  if (what !== "beat") scheduleRefresh();
  showConnection();
}

// onVisibility starts and stops the stream: a hidden page needs none.
function onVisibility() {
  if (document.hidden) {
    stopStream();
  } else {
    startStream();
    scheduleRefresh();
  }
  showConnection();
}

// call sends one request of the API, and returns why it was refused, or "".
async function call(method, parameters) {
  const answer = await send(method, "/maybe?" + new URLSearchParams(parameters));
  scheduleRefresh();
  if (answer.status >= 200 && answer.status < 300) return "";
  if (keyRefused(answer.status)) return "the key is not accepted any more: log in again";
  if (answer.status === 0) return answer.problem + "; try again";
  return answer.problem || `the server answers ${answer.status}`;
}

function newID() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

let subject = null; // what the dialog that was opened last is about

function openDialog(dialog, about) {
  subject = about;
  dialog.querySelector(".problem").textContent = "";
  dialog.querySelector("[type=submit]").disabled = false;
  dialog.showModal();
}

// submit sends the call of a dialog and closes it. A refusal is shown in the
// dialog or, when that has been closed meanwhile, on the page.
async function submit(dialog, method, parameters) {
  const about = subject, button = dialog.querySelector("[type=submit]");
  if (button.disabled) return;
  button.disabled = true;
  const refused = await call(method, parameters);
  const isOpen = dialog.open && subject === about;
  if (isOpen) button.disabled = false;
  if (isOpen && !refused) dialog.close();
  else if (isOpen) dialog.querySelector(".problem").replaceChildren(isolate(refused));
  else if (refused) failure.replaceChildren(isolate(parameters.environment), ": ", isolate(refused));
}

// openReserve opens the dialog with the id of its request: sent twice, it is
// still one request.
function openReserve(environment) {
  const fields = reserve.querySelector("form").elements;
  fields.environment.value = environment || "";
  openDialog(reserve, { id: newID() });
  fields[environment ? "reason" : "environment"].focus();
}

reserve.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const fields = event.target.elements;
  submit(reserve, "POST", {
    environment: fields.environment.value.trim(),
    reason: fields.reason.value,
    ttl: fields.ttl.value,
    holder: user,
    id: subject.id,
  });
});

confirmation.querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const { environment, slot, fence } = subject;
  submit(confirmation, "DELETE", { environment, slot, fence, force: "1", holder: user });
});

// release ends a lease of one's own.
async function release(data) {
  const { environment, slot, fence } = data;
  releasing.add(fence);
  localise();
  const refused = await call("DELETE", { environment, slot, fence, holder: user });
  releasing.delete(fence);
  localise();
  if (refused) failure.replaceChildren(...slotName(data), " was not released: ", isolate(refused));
}

live.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button) return;
  failure.textContent = "";
  const data = { ...button.dataset };
  if (data.act === "reserve") {
    openReserve(data.environment);
  } else if (data.act === "release") {
    release(data);
  } else {
    document.getElementById("confirm-holder").replaceChildren(isolate(data.holder));
    document.getElementById("confirm-slot").replaceChildren(...slotName(data));
    openDialog(confirmation, data);
  }
});

for (const dialog of [reserve, confirmation]) {
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
}
const reserveButton = document.getElementById("reserve-open");
reserveButton.hidden = !user;
reserveButton.addEventListener("click", () => {
  failure.textContent = "";
  openReserve("");
});

document.addEventListener("visibilitychange", onVisibility);
addEventListener("pagehide", stopStream);
addEventListener("pageshow", (event) => { if (event.persisted) onVisibility(); });
setInterval(() => { if (!document.hidden) scheduleRefresh(); }, pollTime);
localise();
startStream();
showConnection();
