// Scripts import the vocabulary that the broadcaster serves: here it comes from the folder that `check` has written it to.

import { register } from "node:module";

const hook = `
export async function resolve(specifier, context, next) {
  if (!specifier.endsWith("/vocabulary.js")) return next(specifier, context);
  return { url: ${JSON.stringify(new URL("../generated/words/vocabulary.js", import.meta.url).href)}, format: "module", shortCircuit: true };
}
export async function load(url, context, next) {
  // The scripts have no package.json beside them: they are modules all the same.
  return next(url, url.startsWith("file:") && url.endsWith(".js") ? { ...context, format: "module" } : context);
}`;

register(`data:text/javascript,${encodeURIComponent(hook)}`);
