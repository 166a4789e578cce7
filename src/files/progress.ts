let listener: () => void = () => undefined;

/**
 * Long work on a file says that the file system has answered once more, so that its time limit begins anew. Outside a
 * helper nobody listens.
 */
export function tellProgress(): void {
  listener();
}

/** Who hears of it: the helper's loop (serve.ts). */
export function onProgress(hear: () => void): void {
  listener = hear;
}
