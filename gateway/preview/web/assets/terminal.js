// A terminal of the sandbox. It belongs to the browser tab: a reload or a lost
// connection comes back to the same shell.
"use strict";
(() => {
  const term = new Terminal({ cursorBlink: true, fontSize: 14, scrollback: 10000, theme: { background: "#14161a" } });
  const fit = new FitAddon.FitAddon();
  term.loadAddon(fit);
  term.open(document.getElementById("terminal"));
  fit.fit();
  term.focus();

  const bar = document.getElementById("state");
  const say = (text) => { bar.textContent = text; bar.hidden = !text; };
  const encoder = new TextEncoder();
  const firstWait = 500, longestWait = 10000;

  let id = sessionStorage.getItem("pty");
  let socket = null, wait = firstWait, ended = false;

  const address = (path) => {
    const u = new URL(path, location.href);
    u.protocol = u.protocol === "https:" ? "wss:" : "ws:";
    return u.href;
  };

  // connect attaches to the tab's shell, or makes one.
  function connect() {
    const fresh = !id;
    if (fresh) {
      id = "web-" + Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) => b.toString(16).padStart(2, "0")).join("");
    }
    const path = fresh
      ? "process/pty/create-connect?id=" + id + "&cols=" + term.cols + "&rows=" + term.rows
      : "process/pty/" + id + "/connect";
    let open = false;
    const ws = new WebSocket(address(path), ["X-Daytona-Pty-Exit-Control"]);
    ws.binaryType = "arraybuffer";
    socket = ws;
    ws.onmessage = (event) => {
      if (typeof event.data !== "string") {
        term.write(new Uint8Array(event.data));
        return;
      }
      const m = JSON.parse(event.data);
      if (m.status === "connected") {
        open = true;
        wait = firstWait;
        sessionStorage.setItem("pty", id);
        say("");
        resize();
      } else if (m.status === "exited") {
        end("The shell has ended with " + m.exitCode + ". Press Enter for a new one.");
      } else if (m.status === "error") {
        end("The shell cannot be started: " + m.error + ". Press Enter to try again.");
      }
    };
    ws.onclose = () => {
      if (socket !== ws || ended) return;
      socket = null;
      if (!open) forgetIfGone(fresh);
      say("Not connected. Trying again …");
      setTimeout(connect, wait);
      wait = Math.min(wait * 2, longestWait);
    };
  }

  // forgetIfGone starts anew when the shell is no more, as after a restart of
  // the sandbox.
  function forgetIfGone(fresh) {
    if (fresh) {
      id = null;
      return;
    }
    fetch("process/pty/" + id).then((res) => {
      if (res.status === 404) {
        id = null;
        sessionStorage.removeItem("pty");
      }
    }).catch(() => {});
  }

  function end(text) {
    ended = true;
    id = null;
    sessionStorage.removeItem("pty");
    say(text);
  }

  function send(bytes) {
    if (ended) {
      if (bytes.includes(13)) {
        ended = false;
        term.reset();
        connect();
      }
      return;
    }
    if (!socket || socket.readyState !== WebSocket.OPEN) return;
    for (let i = 0; i < bytes.length; i += 16384) socket.send(bytes.subarray(i, i + 16384));
  }

  term.onData((text) => send(encoder.encode(text)));
  term.onBinary((text) => send(Uint8Array.from(text, (c) => c.charCodeAt(0))));

  function resize() {
    if (!id || ended) return;
    fetch("process/pty/" + id + "/resize", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ cols: term.cols, rows: term.rows }),
    }).catch(() => {});
  }
  let timer = 0;
  term.onResize(() => { clearTimeout(timer); timer = setTimeout(resize, 100); });
  new ResizeObserver(() => fit.fit()).observe(document.getElementById("terminal"));

  connect();
})();
