/**
 * Loaded into the daemon with `--import preload.ts?control=SOCKET`, before its first module. The daemon runs as it is;
 * the test can make it wait at one write of a journal, and can make its wall clock jump.
 */
import { readFileSync } from 'node:fs';
import promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { createConnection } from 'node:net';
import { createInterface } from 'node:readline';

/** What the test sends, one JSON line each; each is answered by `{"done": KIND}`. */
export type HookCommand =
  | { readonly kind: 'hold'; readonly volumeId: string; readonly state: string; readonly moment: 'asked' | 'answered' }
  | { readonly kind: 'release' }
  | { readonly kind: 'jump'; readonly milliseconds: number };

/** What the daemon sends. */
export type HookNews = { readonly done: HookCommand['kind'] } | { readonly held: true };

interface JournalText {
  readonly volumes: readonly { readonly volumeId: string; readonly state: { readonly state: string } }[];
}

const control = createConnection(new URL(import.meta.url).searchParams.get('control') ?? '');
control.on('error', () => undefined);
control.unref();

function tell(news: HookNews): void {
  control.write(`${JSON.stringify(news)}\n`);
}

let armed: Extract<HookCommand, { kind: 'hold' }> | undefined;
let release = Promise.withResolvers<undefined>();

/** True once for the write that the test waits for, so that the plan that it begins is held there. */
function takes(text: string, moment: 'asked' | 'answered'): boolean {
  if (armed?.moment !== moment) return false;
  const { volumeId, state } = armed;
  const { volumes } = JSON.parse(text) as JournalText;
  if (!volumes.some((volume) => volume.volumeId === volumeId && volume.state.state === state)) return false;
  armed = undefined;
  return true;
}

async function wait(): Promise<void> {
  release = Promise.withResolvers<undefined>();
  tell({ held: true });
  await release.promise;
}

const { open, rename } = promises;
/** Held when the temporary file is open and nothing has been written to it. */
async function heldOpen(...parameters: Parameters<typeof open>): ReturnType<typeof open> {
  const handle = await open(...parameters);
  const [path] = parameters;
  if (typeof path !== 'string' || !path.endsWith('/state.json.new')) return handle;
  const writeFile = handle.writeFile.bind(handle);
  handle.writeFile = async (data, options): Promise<void> => {
    if (typeof data === 'string' && takes(data, 'asked')) await wait();
    await writeFile(data, options);
  };
  return handle;
}
/** Held when the new record has taken the place of the old one. */
async function heldRename(from: string, to: string): Promise<void> {
  const mine = to.endsWith('/state.json') && takes(readFileSync(from, 'utf8'), 'answered');
  await rename(from, to);
  if (mine) await wait();
}
Object.assign(promises, { open: heldOpen, rename: heldRename });
syncBuiltinESMExports();

let offsetMs = 0;
const RealDate = Date;
class JumpingDate extends RealDate {
  constructor(...parameters: [] | [number | string]) {
    if (parameters.length === 0) super(JumpingDate.now());
    else super(...parameters);
  }

  static override now(): number {
    return RealDate.now() + offsetMs;
  }
}
Object.assign(globalThis, { Date: JumpingDate });

createInterface(control).on('line', (line) => {
  const command = JSON.parse(line) as HookCommand;
  switch (command.kind) {
    case 'hold':
      armed = command;
      break;
    case 'release':
      release.resolve(undefined);
      break;
    case 'jump':
      offsetMs += command.milliseconds;
      break;
  }
  tell({ done: command.kind });
});
