// One stream of events at a time: browsers allow six connections to one origin over all tabs, and each stream takes one.

import { Problem, probe, readAbout } from "./api.js";

// The broadcaster sends something every 5 s: three missed in a row is not a delay.
export const SILENCE_MS = 15_000;
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = 10_000;
// A hidden tab gives its connection back after that long.
const HIDDEN_MS = 60_000;

/** @typedef {Record<string, (data: any) => void> & { about: (about: Api.AboutView) => void }} Handlers */

/** Keeps a stream open and tells how it is. */
export class Stream {
  /** @type {EventSource | null} */
  #source = null;
  /** @type {number | null} */
  #heard = null;
  #opened = 0;
  #retry = FIRST_RETRY_MS;
  #closed = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #resting;
  #watchdog;
  #path;
  #events;
  #tell;

  /**
   * @param {string} path
   * @param {Handlers} events by name; each gets the parsed data
   * @param {(link: import("./session.js").Link) => void} tell
   */
  constructor(path, events, tell) {
    this.#path = path;
    this.#events = events;
    this.#tell = tell;
    document.addEventListener("visibilitychange", this.#onVisibility);
    this.#watchdog = setInterval(() => this.#watch(), 1_000);
    this.#open();
  }

  close() {
    this.#closed = true;
    document.removeEventListener("visibilitychange", this.#onVisibility);
    clearInterval(this.#watchdog);
    this.#drop();
  }

  #drop() {
    clearTimeout(this.#timer);
    clearTimeout(this.#resting);
    this.#source?.close();
    this.#source = null;
  }

  #open() {
    this.#opened = Date.now();
    const source = new EventSource(this.#path);
    this.#source = source;
    for (const [name, handle] of Object.entries(this.#events)) {
      source.addEventListener(name, (event) => this.#take(source, event, handle));
    }
    source.addEventListener("problem", (event) =>
      this.#take(source, event, ({ error }) => this.#lost(new Problem(error, { told: true }))));
    source.onerror = () => {
      if (source === this.#source) this.#ask();
    };
  }

  /**
   * @param {EventSource} source
   * @param {MessageEvent} event
   * @param {(data: any) => void} handle
   */
  #take(source, event, handle) {
    if (source !== this.#source) return;
    let data;
    try {
      data = JSON.parse(event.data);
    } catch {
      this.#lost(new Problem({ kind: "broken", problem: "the broadcaster sent what is no JSON", fix: "load the page again" }));
      return;
    }
    this.#heard = Date.now();
    if (event.type !== "problem") {
      // `about` comes before the broadcaster finds that it cannot tell the rest.
      if (event.type !== "about") this.#retry = FIRST_RETRY_MS;
      this.#tell({ name: "live", since: this.#heard, error: null });
    }
    handle(data);
  }

  /** An EventSource does not say why it failed: a plain request does. */
  async #ask() {
    this.#drop();
    try {
      await probe(this.#path);
      this.#lost(new Problem({ kind: "unavailable", problem: "the stream of changes ended" }));
    } catch (caught) {
      const error = Problem.of(caught);
      if (error.status === 401) await this.#askAbout();
      this.#lost(error);
    }
  }

  /** The broadcaster has ended the sign-in: the page asks for a new one. */
  async #askAbout() {
    try {
      const about = await readAbout();
      if (!this.#closed) this.#events.about(about);
    } catch {
      // What is told about the stream is enough.
    }
  }

  /** @param {Problem} error */
  #lost(error) {
    this.#drop();
    if (this.#closed) return;
    this.#tell({ name: "unreachable", since: this.#heard, error });
    // With a spread, so that not every dashboard comes back in the same instant.
    this.#timer = setTimeout(() => this.#open(), this.#retry * (0.75 + Math.random() / 2));
    this.#retry = Math.min(this.#retry * 2, LAST_RETRY_MS);
  }

  #watch() {
    if (!this.#source) return;
    const quiet = Date.now() - Math.max(this.#heard ?? 0, this.#opened);
    if (quiet < SILENCE_MS) return;
    // The connection may be dead without either side knowing: a new one finds out.
    this.#tell({ name: "stale", since: this.#heard, error: null });
    this.#drop();
    this.#open();
  }

  #onVisibility = () => {
    if (document.hidden) this.#resting = setTimeout(() => this.#drop(), HIDDEN_MS);
    else {
      clearTimeout(this.#resting);
      if (!this.#source && !this.#closed) {
        this.#retry = FIRST_RETRY_MS;
        this.#drop();
        this.#open();
      }
    }
  };
}
