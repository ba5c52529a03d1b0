"use strict";
(() => {
  const id = name => document.getElementById(name);
  const title = document.title, SILENT = 7000, AGAIN = 3000;
  const version = id("version").textContent;
  let source, heard = 0, skew = 0, live = null, stale = false;
  const clock = ms => new Date(ms).toISOString().slice(11, 19) + " UTC";
  // Each state is said once: it is read aloud.
  const say = (is, text) => {
    if (live === is) return;
    live = is;
    document.body.classList.toggle("lost", !is);
    id("link").textContent = text;
  };
  const lost = () => say(false, heard
    ? "\u2717 Connection lost, last seen " + clock(heard + skew) + ". What stands here may be out of date; trying again."
    : "\u2717 No live updates yet; trying again.");
  // Makes the nodes below a like those below b, and keeps those that stay: focus, selection, scrolling and what is open.
  const morph = (a, b) => {
    const kept = new Set([...b.children].map(child => child.id).filter(Boolean));
    for (const child of [...a.children]) if (child.id && !kept.has(child.id)) child.remove();
    let at = a.firstChild;
    for (const want of [...b.childNodes]) {
      const known = want.id && [...a.children].find(child => child.id === want.id);
      const same = known || (at && at.nodeName === want.nodeName && !at.id && !want.id && at);
      if (!same) {
        a.insertBefore(want, at);
      } else {
        if (same === at) at = at.nextSibling; else a.insertBefore(same, at);
        become(same, want);
      }
    }
    while (at) { const next = at.nextSibling; at.remove(); at = next; }
  };
  const become = (a, b) => {
    if (a.nodeType === 3) {
      if (a.data === b.data) return;
      a.data = b.data;
      const cell = a.parentNode.closest("#shards td");
      if (cell) { cell.classList.remove("new"); void cell.offsetWidth; cell.classList.add("new"); }
      return;
    }
    for (const { name } of [...a.attributes])
      if (!b.hasAttribute(name) && name !== "open" && name !== "data-age") a.removeAttribute(name);
    for (const { name, value } of b.attributes) if (a.getAttribute(name) !== value) a.setAttribute(name, value);
    morph(a, b);
  };
  const put = parts => {
    for (const [name, html] of Object.entries(parts)) {
      const fresh = document.createElement("template"), part = id(name);
      fresh.innerHTML = html;
      if (part) morph(part, fresh.content);
    }
    const word = id("word"), now = id("version");
    if (word) document.title = word.firstChild.textContent + " \u00b7 " + title;
    ages();
    // Another release has other parts.
    if (!stale && !(now && now.textContent === version)) { stale = true; setTimeout(() => location.reload(), AGAIN); }
  };
  const ages = () => document.querySelectorAll("time.age").forEach(time => {
    const s = Math.max(0, (Date.now() + skew - Date.parse(time.dateTime)) / 1000);
    time.dataset.age = s < 60 ? "just now" : s < 3600 ? Math.floor(s / 60) + " min ago"
      : s < 172800 ? Math.floor(s / 3600) + " h ago" : Math.floor(s / 86400) + " days ago";
  });
  const hear = event => {
    const news = JSON.parse(event.data), now = Date.now();
    skew = news.at - now;
    if (news.parts) put(news.parts);
    heard = now;
    say(true, "\u2713 Live");
  };
  const connect = () => {
    if (source) source.close();
    source = new EventSource("api/live");
    source.addEventListener("parts", hear);
    source.addEventListener("beat", hear);
    source.onerror = () => {
      lost();
      // Refused: the browser does not try again by itself.
      if (source.readyState === 2) setTimeout(connect, AGAIN);
    };
  };
  let tried = Date.now();
  setInterval(() => {
    ages();
    const now = Date.now();
    // A replica that is frozen or cut off closes nothing.
    if (now - Math.max(heard, tried) > SILENT) { lost(); tried = now; connect(); }
  }, 1000);
  ages();
  connect();
})();
