// Counts the clocks down, and draws the page anew when something changed. Without it the page works, but stands still.
"use strict";

const spoken = (s) =>
  s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min ${s % 60} s`
  : s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor(s / 60) % 60} min` : `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;

// Time left is counted from when the page came, so that a wrong clock in the browser does not matter.
let came = performance.now();
const tick = () => {
  for (const time of document.querySelectorAll("time[data-left]")) {
    const left = Math.max(0, Math.floor((Number(time.dataset.left) - (performance.now() - came)) / 1000));
    time.textContent = left === 0 ? "over" : spoken(left);
  }
};
setInterval(tick, 1000);

// One at a time; a change that comes meanwhile is drawn right after.
let asked = false;
let again = false;
const redraw = async () => {
  if (asked) { again = true; return; }
  asked = true;
  try {
    const response = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
    if (response.status === 401) return location.reload();
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const typed = document.querySelector("textarea")?.value;
    const focused = document.activeElement?.id === "reason";
    document.querySelector("main").replaceWith(page.querySelector("main"));
    document.title = page.title;
    const reason = document.querySelector("textarea");
    if (reason && typed) reason.value = typed;
    if (reason && focused) reason.focus();
    came = performance.now();
    tick();
  } finally {
    asked = false;
    if (again) { again = false; redraw(); }
  }
};

const events = new EventSource("/inbox/events");
events.onmessage = redraw;
// After a lost connection something may have been missed.
let lost = false;
events.onerror = () => { lost = true; };
events.onopen = () => { if (lost) { lost = false; redraw(); } };
