// The stream of the server's events. The page uses this file twice: as a
// SharedWorker, which has one stream for all tabs of a browser, and as a plain
// script where there is no SharedWorker. A browser opens six connections to a
// host at most, so a stream for each tab would leave none for the rest.
"use strict";

const openTime = 10000; // milliseconds for the stream to open
const silenceTime = 40000; // without anything heard: the server sends a beat every 15 s
const retryTime = 2000; // between a lost stream and the next one

// follow opens the stream and keeps it open until the function that it returns
// is called. It reports "open", "event" (something has changed), "beat" (nothing
// has) and "lost". After "lost" it tries again.
function follow(report) {
  let events, deadline;
  const heard = (what) => {
    deadline = Date.now() + silenceTime;
    report(what);
  };
  const lose = () => {
    events.close();
    deadline = Date.now() + retryTime;
    report("lost");
  };
  const open = () => {
    deadline = Date.now() + openTime;
    events = new EventSource(new URL("/events", location.origin));
    events.onopen = () => heard("open");
    events.onerror = lose;
    for (const kind of ["granted", "released", "expired", "forced", "left", "abandoned", "change"]) {
      events.addEventListener(kind, () => heard("event"));
    }
    events.addEventListener("beat", () => heard("beat"));
  };
  const check = () => {
    if (Date.now() < deadline) return;
    if (events.readyState === EventSource.CLOSED) open(); else lose();
  };
  open();
  const timer = setInterval(check, 1000); // by the clock: a computer that sleeps does not run its timers
  return () => {
    clearInterval(timer);
    events.close();
  };
}

// share gives the reports of one stream to the tabs that have joined, which are
// the visible ones. A tab sends "join" when it becomes visible and after each
// beat, and "leave" when it is hidden or closed. One that has crashed answers no
// beat, and is removed at the third. Without a visible tab there is no stream.
function share() {
  const tabs = new Map(); // the beats that each has not answered
  let stop = null, state = "";
  const report = (what) => {
    if (what === "open" || what === "lost") state = what;
    for (const [tab, beats] of tabs) {
      if (what === "beat") tabs.set(tab, beats + 1);
      if (beats < 2) tab.postMessage(what); else leave(tab);
    }
  };
  const join = (tab) => {
    const isNew = !tabs.has(tab);
    tabs.set(tab, 0);
    if (!stop) stop = follow(report);
    if (isNew && state) tab.postMessage(state);
  };
  const leave = (tab) => {
    tabs.delete(tab);
    if (tabs.size > 0 || !stop) return;
    stop();
    stop = null;
    state = "";
  };
  self.onconnect = (event) => {
    const tab = event.ports[0];
    tab.onmessage = (message) => { if (message.data === "join") join(tab); else leave(tab); };
  };
}

if (self.SharedWorkerGlobalScope) share();
