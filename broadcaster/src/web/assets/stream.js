// One stream of events at a time: browsers allow six connections to one origin over all tabs, and each stream takes one.

import { probe, read } from "./api.js";

// The broadcaster says something every 5 s: three missed in a row is not a delay.
export const SILENCE_MS = 15_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 10_000;
// A tab nobody looks at gives its connection back after that long.
const HIDDEN_MS = 60_000;

/**
 * Keeps a stream open and tells how it is: `state({ name, since, error })`, where name is connecting, live, stale or unreachable.
 * `events` are handlers by name and get the parsed data.
 */
export class Stream {
  constructor(path, events, state) {
    this.path = path;
    this.events = events;
    this.tell = state;
    this.retry = FIRST_RETRY_MS;
    this.heard = null;
    this.hide = () => this.onVisibility();
    document.addEventListener("visibilitychange", this.hide);
    this.watchdog = setInterval(() => this.watch(), 1_000);
    this.open();
  }

  close() {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.hide);
    clearInterval(this.watchdog);
    this.drop();
  }

  /** Tries again at once. */
  again() {
    this.retry = FIRST_RETRY_MS;
    this.drop();
    this.open();
  }

  drop() {
    clearTimeout(this.timer);
    clearTimeout(this.resting);
    this.source?.close();
    this.source = null;
  }

  open() {
    this.opened = Date.now();
    const source = new EventSource(this.path);
    this.source = source;
    for (const [name, handle] of Object.entries(this.events)) {
      source.addEventListener(name, (event) => this.take(source, event, handle));
    }
    source.addEventListener("problem", (event) =>
      this.take(source, event, ({ error }) => this.lost({ ...error, told: true })));
    source.onerror = () => source === this.source && this.ask();
  }

  take(source, event, handle) {
    if (source !== this.source) return;
    let data;
    try {
      data = JSON.parse(event.data);
    } catch {
      return;
    }
    this.heard = Date.now();
    if (event.type !== "problem") {
      // Its word about itself comes before it finds that it cannot tell the rest.
      if (event.type !== "about") this.retry = FIRST_RETRY_MS;
      this.tell({ name: "live", since: this.heard, error: null });
    }
    handle(data);
  }

  /** An EventSource does not say why it failed: a plain request does. */
  async ask() {
    this.drop();
    try {
      await probe(this.path);
      this.lost({ kind: "unavailable", problem: "the stream of changes ended" });
    } catch (error) {
      if (error.status === 401) await this.askAbout();
      this.lost(error);
    }
  }

  /** Who has been signed out is to sign in. */
  async askAbout() {
    try {
      const about = await read("/api/about");
      if (!this.closed) this.events.about(about);
    } catch {
      // What is told about the stream is enough.
    }
  }

  lost(error) {
    this.drop();
    if (this.closed) return;
    this.tell({ name: "unreachable", since: this.heard, error });
    // With a spread, so that not every dashboard comes back in the same instant.
    this.timer = setTimeout(() => this.open(), this.retry * (0.75 + Math.random() / 2));
    this.retry = Math.min(this.retry * 2, LAST_RETRY_MS);
  }

  watch() {
    if (!this.source) return;
    const quiet = Date.now() - Math.max(this.heard ?? 0, this.opened);
    if (quiet < SILENCE_MS) return;
    // The connection may be dead without either side knowing: a new one finds out.
    this.tell({ name: "stale", since: this.heard, error: null });
    this.drop();
    this.open();
  }

  onVisibility() {
    if (document.hidden) this.resting = setTimeout(() => this.drop(), HIDDEN_MS);
    else {
      clearTimeout(this.resting);
      if (!this.source && !this.closed) this.again();
    }
  }
}
