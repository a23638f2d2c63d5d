"use strict";
// Asks for status.json every two seconds. Text is only ever set as text, never as markup.
const CLASSES = ["happy", "neutral", "surprise", "sad", "angry", "fear", "disgust"];
const $ = (id) => document.getElementById(id);

function say(element, text, kind = "") {
  element.textContent = text;
  element.className = kind;
}

function ago(seconds) {
  if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

function row(body, cells) {
  const tr = body.insertRow();
  cells.forEach((cell, place) => {
    const box = tr.appendChild(document.createElement(place ? "td" : "th"));
    if (!place) box.scope = "row";
    box.append(cell);
  });
}

function meter(value, most, label) {
  const bar = document.createElement("meter");
  bar.max = Math.max(1, most);
  bar.value = Math.max(0, value);
  bar.setAttribute("aria-label", label);
  return bar;
}

const released = (value) => (value === null ? "–" : String(value));

function showToday(today) {
  const body = $("today").tBodies[0];
  body.replaceChildren();
  if (!today) return;
  $("index").textContent = today.index === null ? "–" : `${Math.round(100 * today.index)} %`;
  const windows = `${today.windows} window${today.windows === 1 ? "" : "s"}`;
  $("n").textContent = `happy of ${today.classified} classified, ${windows} since midnight UTC`;
  const most = Math.max(...CLASSES.map((name) => today.cells[name] ?? 0));
  for (const name of [...CLASSES, "uncertain"]) {
    const value = today.cells[name];
    row(body, [name, name === "uncertain" ? "" : meter(value ?? 0, most, name), released(value)]);
  }
}

function showWindow(latest) {
  const body = $("latest").tBodies[0];
  body.replaceChildren();
  if (!latest) return;
  const { start, seconds } = latest.window;
  const share = Math.round(100 * latest.coverage);
  $("window").textContent = `from ${start.slice(0, 16).replace("T", " ")} UTC, ${ago(seconds)}, ${share} % seen`;
  $("noise").hidden = latest.privacy.mechanism === "none";
  for (const name of [...CLASSES, "uncertain"]) {
    row(body, [name, released(latest.counts.unmasked[name]), released(latest.counts.masked[name])]);
  }
}

function showService(told) {
  const { health, outbox, trouble } = told;
  const now = Date.parse(told.at) / 1000;
  const facts = [["broker", told.connected ? "connected" : "not connected", told.connected ? "good" : "bad"]];
  if (told.last_publish) facts.push(["last publish", `${ago(now - Date.parse(told.last_publish) / 1000)} ago`]);
  if (trouble) facts.push(["outbox", `cannot be used: ${trouble}`, "bad"]);
  else if (outbox) {
    const waits = outbox.unsent ? `${outbox.unsent} wait, oldest ${ago(outbox.oldest_s)}` : "empty";
    facts.push(["outbox", waits, outbox.unsent ? "warn" : ""]);
  }
  if (health) {
    facts.unshift(
      ["scene", health.scene, health.scene === "ok" ? "good" : "warn"],
      ["frame rate", health.rate],
      ["backend", health.backend, health.backend === "cpu:fallback" ? "bad" : ""],
    );
    const { p50, p95 } = health.invoke_ms;
    if (p50 !== null) facts.push(["inference p50, p95", `${p50.toFixed(1)}, ${p95.toFixed(1)} ms`]);
    facts.push(["clock", health.time_quality, health.time_quality === "synced" ? "" : "warn"]);
    if (health.soc_c !== null) facts.push(["processor", `${health.soc_c} °C`, health.soc_c >= 80 ? "bad" : ""]);
    if (health.under_voltage) facts.push(["power", "under-voltage", "bad"]);
    for (const [name, version] of Object.entries(health.versions)) facts.push([name, version]);
  }
  const list = $("service");
  list.replaceChildren();
  for (const [name, text, kind] of facts) {
    list.appendChild(document.createElement("dt")).textContent = name;
    say(list.appendChild(document.createElement("dd")), text, kind);
  }
}

function show(told) {
  document.title = $("name").textContent = `${told.site} / ${told.device}`;
  if (told.health && told.health.paused) say($("state"), "paused: the camera is closed", "warn");
  else if (told.running) say($("state"), "counting", "good");
  else say($("state"), "the vision service does not run", "bad");
  showToday(told.today);
  showWindow(told.latest);
  showService(told);
  $("at").textContent = `As of ${told.at.slice(11, 19)} UTC.`;
}

async function refresh() {
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.json());
  } catch {
    say($("state"), "the publisher does not answer", "bad");
  }
  setTimeout(refresh, 2000);
}

refresh();
