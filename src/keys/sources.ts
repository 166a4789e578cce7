import type { Logger } from '../base/log.ts';
import type { KeyBindings, KeyUse } from './bindings.ts';
import { keyError } from './errors.ts';
import { runKeyCommand } from './key-command.ts';
import { lookAtSecretFile } from './secret-look.ts';
import { KEY_BYTES_MAX, KeyMaterial } from './material.ts';
import { describeReference, type KeyReference } from './reference.ts';

/**
 * From a reference to a key, for as long as somebody holds it:
 *
 *     reference.ts ─▶ bindings.ts ─▶ KeySources.fetch ─┬─ file, credential ─▶ key-file.ts
 *                                                      ├─ environment ──────▶ taken at the start ─▶ KeyMaterial, zeroed
 *                                                      └─ command, tang ────▶ key-command.ts
 */

/** Gives the key that a reference stands for. The caller owns it: `using key = await source.fetch(...)`. */
export interface KeySource {
  /**
   * @param use what for: the operator may have bound the key to something else
   * @throws ShimError with a reason of keys/errors.ts, or the signal's reason
   */
  fetch(reference: KeyReference, use: KeyUse, options?: { readonly signal?: AbortSignal }): Promise<KeyMaterial>;
}

/** What the operator allows. Whatever is missing is refused. */
export interface KeySourcesOptions {
  readonly log: Logger;
  /** Below these lie the key files and the JWE files that callers may name. */
  readonly directories: readonly string[];
  /** Names of environment variables that hold keys. */
  readonly environmentNames: readonly string[];
  /** By the name that callers use: an absolute path, and arguments. */
  readonly commands: ReadonlyMap<string, { readonly file: string; readonly args: readonly string[] }>;
  readonly timeoutMs: number;
  /** $CREDENTIALS_DIRECTORY; undefined when systemd gave none. */
  readonly credentialsDirectory: string | undefined;
  /** From which variables are taken out, and which commands get PATH of. `process.env` in the daemon. */
  readonly environment: NodeJS.ProcessEnv;
  /** What keys are bound to. */
  readonly bindings: KeyBindings;
  /** Where clevis is; default /usr/bin/clevis. */
  readonly clevis?: string;
}

/** Commands as the configuration writes them: NAME=/PROGRAM ARGUMENT ..., cut at blanks; there is no shell. */
export function parseKeyCommands(lines: readonly string[]): KeySourcesOptions['commands'] {
  return new Map(
    lines.map((line) => {
      const equals = line.indexOf('=');
      const [file = '', ...args] = line.slice(equals + 1).split(/\s+/);
      return [line.slice(0, equals), { file, args: args.filter((arg) => arg !== '') }];
    }),
  );
}

/** A JWE of `clevis encrypt tang` with its advertisement is 1 to 2 KiB for each server. */
const JWE_BYTES_MAX = 256 * 1024;
const PLAIN_NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}$/;

/**
 * All sources of keys, by kind of reference. The bytes of a file, of a credential, and of what a command prints are the
 * key, every one of them: a trailing newline counts, as in `cryptsetup --key-file`.
 */
export class KeySources implements KeySource, Disposable {
  readonly #options: KeySourcesOptions;
  /** What was taken from the environment, once and for all: it is not there any more. */
  readonly #fromEnvironment = new Map<string, Buffer>();

  constructor(options: KeySourcesOptions) {
    this.#options = options;
    for (const [name, { file }] of options.commands) {
      if (!file.startsWith('/')) throw refused(`command:${name}`, `${file} is no absolute path`);
    }
    this.#takeEnvironment();
  }

  async fetch(
    reference: KeyReference,
    use: KeyUse,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<KeyMaterial> {
    const { signal } = options;
    signal?.throwIfAborted();
    const what = describeReference(reference);
    this.#options.bindings.check(what, use);
    this.#options.log.debug({ key: what }, 'fetching a key');
    switch (reference.kind) {
      case 'file':
        return await this.#file(reference.path, this.#options.directories, 'key');
      case 'systemd-credential':
        return await this.#credential(reference.name, what);
      case 'environment':
        return this.#environment(reference.name, what);
      case 'command':
        return await this.#command(reference.name, what, signal);
      case 'tang':
        return await this.#tang(reference.path, what, signal);
    }
  }

  /** Zeroes what was taken from the environment. */
  [Symbol.dispose](): void {
    for (const bytes of this.#fromEnvironment.values()) bytes.fill(0);
    this.#fromEnvironment.clear();
  }

  async #file(path: string, directories: readonly string[], kind: 'key' | 'credential'): Promise<KeyMaterial> {
    const { timeoutMs } = this.#options;
    return KeyMaterial.take(await lookAtSecretFile({ path, directories, bytesMax: KEY_BYTES_MAX, kind }, timeoutMs));
  }

  async #credential(name: string, what: string): Promise<KeyMaterial> {
    const directory = this.#options.credentialsDirectory;
    // No slash, and no leading dot: a credential is a file right in that directory.
    if (!PLAIN_NAME.test(name)) throw refused(what, 'is not the name of a credential');
    if (directory === undefined) throw notFound(what, 'systemd gave this daemon no credentials');
    return await this.#file(`${directory}/${name}`, [directory], 'credential');
  }

  /**
   * Strings of process.env cannot be zeroed, and Linux goes on showing a process's first environment in
   * /proc/PID/environ: the least safe of the sources, hence off by default. Taken at the start, before any child could
   * inherit it, the value lives on here as bytes.
   */
  #takeEnvironment(): void {
    const { environment, environmentNames } = this.#options;
    for (const name of environmentNames) {
      const value = environment[name];
      if (value === undefined) continue;
      Reflect.deleteProperty(environment, name);
      const bytes = Buffer.alloc(Buffer.byteLength(value));
      bytes.write(value);
      this.#fromEnvironment.set(name, bytes);
    }
  }

  #environment(name: string, what: string): KeyMaterial {
    if (!this.#options.environmentNames.includes(name)) throw refused(what, 'is not in the list of allowed variables');
    const bytes = this.#fromEnvironment.get(name);
    if (bytes === undefined) throw notFound(what, 'is not set');
    return KeyMaterial.take(Uint8Array.from(bytes));
  }

  async #command(name: string, what: string, signal: AbortSignal | undefined): Promise<KeyMaterial> {
    const command = this.#options.commands.get(name);
    if (command === undefined) throw refused(what, 'is no configured command');
    return await runKeyCommand({ ...command, ...this.#surroundings(signal), what });
  }

  /** The pin is named here, not left to the JWE: what a file says must not choose the program that runs. */
  async #tang(path: string, what: string, signal: AbortSignal | undefined): Promise<KeyMaterial> {
    const { directories, clevis, timeoutMs } = this.#options;
    const input = await lookAtSecretFile({ path, directories, bytesMax: JWE_BYTES_MAX, kind: 'jwe' }, timeoutMs);
    const file = clevis ?? '/usr/bin/clevis';
    return await runKeyCommand({ file, args: ['decrypt', 'tang'], input, ...this.#surroundings(signal), what });
  }

  #surroundings(signal: AbortSignal | undefined): {
    env: Record<string, string>;
    timeoutMs: number;
    signal?: AbortSignal;
  } {
    const { environment, timeoutMs } = this.#options;
    const env = { PATH: environment['PATH'] ?? '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL: 'C' };
    return { env, timeoutMs, ...(signal && { signal }) };
  }
}

function refused(what: string, problem: string): Error {
  return keyError('KEY_SOURCE_REFUSED', `${what}: ${problem}`, { metadata: { source: what } });
}

function notFound(what: string, problem: string): Error {
  return keyError('KEY_NOT_FOUND', `${what}: ${problem}`, { metadata: { source: what } });
}
