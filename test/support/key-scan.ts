import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';

const WINDOW_BYTES = 16;
/** Files that are longer are read in parts that overlap. */
const PART_BYTES = 8 * 1024 * 1024;
/** No needle is longer. */
const OVERLAP_BYTES = 256;

export interface Finding {
  readonly where: string;
  /**
   * How the key's bytes were written there: "raw", "hex", "HEX", "inspect", "json", "indexed", "base64+N",
   * "base64url+N".
   */
  readonly form: string;
}

/**
 * Every 16-byte window of a key in each form in which it could have been written down. Base64 depends on where in the
 * text the key begins, so there are three of each; only the characters that the window alone decides are looked for.
 */
export function needlesOf(key: Buffer): Needles {
  if (key.length < WINDOW_BYTES) throw new Error('a key that is shorter than a window cannot be told from chance');
  const needles = new Map<string, Buffer>();
  for (let at = 0; at + WINDOW_BYTES <= key.length; at += 1) {
    const window = key.subarray(at, at + WINDOW_BYTES);
    needles.set(`raw ${at}`, window);
    needles.set(`hex ${at}`, Buffer.from(window.toString('hex')));
    needles.set(`HEX ${at}`, Buffer.from(window.toString('hex').toUpperCase()));
    // What a Buffer becomes by util.inspect and by JSON, and a Uint8Array by JSON, when one is logged by mistake.
    needles.set(`inspect ${at}`, Buffer.from((window.toString('hex').match(/../g) ?? []).join(' ')));
    needles.set(`json ${at}`, Buffer.from(window.join(',')));
    needles.set(`indexed ${at}`, Buffer.from(Array.from(window, (byte, index) => `"${at + index}":${byte}`).join(',')));
    for (const shift of [0, 1, 2]) {
      const text = Buffer.concat([Buffer.alloc(shift), window]).toString('base64');
      const own = text.slice(Math.ceil((shift * 8) / 6), Math.floor(((shift + WINDOW_BYTES) * 8) / 6));
      needles.set(`base64+${shift} ${at}`, Buffer.from(own));
      needles.set(`base64url+${shift} ${at}`, Buffer.from(own.replaceAll('+', '-').replaceAll('/', '_')));
    }
  }
  return index(needles);
}

export interface Needles {
  /** By the first four bytes of the needle, as one number. */
  readonly byStart: ReadonlyMap<number, readonly { readonly form: string; readonly needle: Buffer }[]>;
  /**
   * One byte for each pair of first bytes: 1 when some needle begins so. Hundreds of needles are looked for in one
   * pass.
   */
  readonly pairs: Uint8Array;
}

function index(needles: ReadonlyMap<string, Buffer>): Needles {
  const byStart = new Map<number, { form: string; needle: Buffer }[]>();
  const pairs = new Uint8Array(65_536);
  for (const [form, needle] of needles) {
    const start = needle.readUInt32BE(0);
    byStart.set(start, [...(byStart.get(start) ?? []), { form, needle }]);
    pairs[needle.readUInt16BE(0)] = 1;
  }
  return { byStart, pairs };
}

/** The first form in which any window of the key occurs in the bytes. */
export function scanBytes(where: string, bytes: Buffer, { byStart, pairs }: Needles): Finding | undefined {
  for (let at = 0; at + 4 <= bytes.length; at += 1) {
    if (pairs[((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)] !== 1) continue;
    for (const { form, needle } of byStart.get(bytes.readUInt32BE(at)) ?? []) {
      if (needle.equals(bytes.subarray(at, at + needle.length))) return { where, form: form.split(' ')[0] ?? form };
    }
  }
  return undefined;
}

/** Looks through every regular file below the directories; sockets and what vanishes meanwhile are passed over. */
export async function scanFiles(
  directories: readonly string[],
  needles: Needles,
  passOver: (path: string) => boolean = () => false,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const directory of directories) {
    for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
      const path = join(entry.parentPath, entry.name);
      if (!entry.isFile() || passOver(path)) continue;
      const bytes = await readFile(path).catch(() => undefined);
      if (bytes === undefined) continue;
      for (let at = 0; at < bytes.length; at += PART_BYTES) {
        const found = scanBytes(path, bytes.subarray(at, at + PART_BYTES + OVERLAP_BYTES), needles);
        if (found !== undefined) findings.push(found);
      }
    }
  }
  return findings;
}

/** Looks through the command line and the environment of every process. */
export async function scanProcesses(needles: Needles): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const pid of await readdir('/proc')) {
    if (!/^\d+$/.test(pid)) continue;
    for (const name of ['cmdline', 'environ']) {
      const bytes = await readFile(`/proc/${pid}/${name}`).catch(() => undefined);
      const found = bytes === undefined ? undefined : scanBytes(`/proc/${pid}/${name}`, bytes, needles);
      if (found !== undefined) findings.push(found);
    }
  }
  return findings;
}

/** Files that the processes have open and that have no name any more: memory that has one, too (memfd). */
export async function scanUnnamed(pids: readonly number[], needles: Needles): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  for (const pid of pids) {
    for (const fd of await readdir(`/proc/${pid}/fd`)) {
      const path = `/proc/${pid}/fd/${fd}`;
      const target = await readlink(path).catch(() => '');
      if (!target.endsWith(' (deleted)') || !(await stat(path)).isFile()) continue;
      const bytes = await readFile(path).catch(() => undefined);
      const found = bytes === undefined ? undefined : scanBytes(`${path} (${target})`, bytes, needles);
      if (found !== undefined) findings.push(found);
    }
  }
  return findings;
}
