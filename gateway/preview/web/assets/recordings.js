// The recordings of the sandbox's desktop.
"use strict";
(async () => {
  const base = "computeruse/recordings";
  const note = document.getElementById("note");
  const list = document.getElementById("list");
  const add = (parent, kind, set) => parent.appendChild(Object.assign(document.createElement(kind), set));

  let res, body;
  try {
    res = await fetch(base);
    body = await res.json();
  } catch (err) {
    note.textContent = "The sandbox did not answer. Reload to try again.";
    return;
  }
  if (!res.ok) {
    note.textContent = body.message || "There are no recordings here (" + res.status + ").";
    return;
  }
  const all = body.recordings || [];
  note.textContent = all.length ? "" : "Nothing has been recorded yet.";
  for (const r of all) {
    const item = add(list, "li", {});
    add(item, "strong", { textContent: r.fileName || r.id });
    const seconds = r.durationSeconds ? Math.round(r.durationSeconds) + " s" : "";
    add(item, "small", { textContent: " " + [r.startTime, seconds, r.status].filter(Boolean).join(" · ") });
    if (r.status !== "active") {
      const href = base + "/" + encodeURIComponent(r.id) + "/download";
      add(item, "video", { src: href, controls: true, preload: "metadata" });
      add(item, "a", { href, download: r.fileName || "recording.mp4", textContent: "Download" });
    }
  }
})();
