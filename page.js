// The page works without this: it is what makes it live, and lets people act.
"use strict";

const live = document.getElementById("live");
const connection = document.getElementById("connection");
const reserve = document.getElementById("reserve");
const confirmation = document.getElementById("confirm");
const user = document.body.dataset.user;
let acting = null; // the button's data that the confirmation is about

// localise shows times in the reader's zone, and the buttons.
function localise() {
  for (const time of live.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    time.textContent = at.toLocaleString([], today ? { hour: "2-digit", minute: "2-digit" } : { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
    time.title = at.toLocaleString();
  }
  for (const actions of live.querySelectorAll(".actions")) {
    const act = actions.querySelector("button").dataset.act;
    actions.hidden = !user && act !== "force";
  }
}

// refresh takes what the server shows now, and leaves the rest of the page,
// what is focused and the open dialog alone.
let refreshing = false, again = false;
async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    const answer = await fetch(location.pathname + location.search);
    if (answer.ok) {
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const focused = live.contains(document.activeElement) ? document.activeElement.id : "";
      live.replaceChildren(...next.getElementById("live").childNodes);
      document.getElementById("known").replaceChildren(...next.getElementById("known").childNodes);
      localise();
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    }
  } catch { // the event source tells of a lost connection
  }
  refreshing = false;
  if (again) { again = false; refresh(); }
}

let pending;
function soon() {
  clearTimeout(pending);
  pending = setTimeout(refresh, 150);
}

function listen() {
  const events = new EventSource("/events");
  for (const kind of ["granted", "released", "expired", "forced", "left", "lapsed", "change"]) events.addEventListener(kind, soon);
  events.onopen = () => { connection.className = "on"; connection.textContent = "live"; soon(); };
  events.onerror = () => {
    connection.className = "off";
    connection.textContent = "connection lost: this may be out of date; trying again";
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

// call sends one request of the API, and returns why it was refused, or "".
async function call(method, parameters) {
  try {
    const answer = await fetch("/maybe?" + new URLSearchParams(parameters), { method });
    if (answer.ok) return "";
    return (await answer.json()).message;
  } catch {
    return "the server cannot be reached";
  }
}

function newID() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

function openReserve(environment) {
  reserve.querySelector(".problem").textContent = "";
  reserve.querySelector("form").elements.environment.value = environment || "";
  reserve.showModal();
  reserve.querySelector("form").elements[environment ? "reason" : "environment"].focus();
}

reserve.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { environment, reason, ttl } = event.target.elements;
  const problem = await call("POST", { environment: environment.value.trim(), reason: reason.value, ttl: ttl.value, holder: user, id: newID() });
  if (problem) { reserve.querySelector(".problem").textContent = problem; return; }
  reserve.close();
  refresh();
});

confirmation.querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const problem = await call("DELETE", { environment: acting.environment, slot: acting.slot, fence: acting.fence, force: "1", holder: user });
  if (problem) { confirmation.querySelector(".problem").textContent = problem; return; }
  confirmation.close();
  refresh();
});

live.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button) return;
  acting = { ...button.dataset };
  if (acting.act === "reserve") {
    openReserve(acting.environment);
  } else if (acting.act === "release") {
    button.disabled = true;
    await call("DELETE", { environment: acting.environment, slot: acting.slot, fence: acting.fence, holder: user });
    refresh();
  } else {
    document.getElementById("confirm-holder").textContent = acting.holder;
    document.getElementById("confirm-slot").textContent = acting.slot === acting.environment ? acting.slot : acting.environment + ", " + acting.slot;
    confirmation.querySelector(".problem").textContent = "";
    confirmation.showModal();
  }
});

for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
const open = document.getElementById("reserve-open");
open.hidden = !user;
open.addEventListener("click", () => openReserve(""));

localise();
listen();
setInterval(refresh, 30000); // durations grow
