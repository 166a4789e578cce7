/**
 * Loaded into the daemon with `--import preload.ts?control=SOCKET`, before its first module. The daemon runs as it is; the test
 * can make it wait at one write of a journal, and can make its wall clock jump.
 */
import { readFileSync } from 'node:fs';
import promises from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { createConnection } from 'node:net';
import { basename } from 'node:path';
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

const rename = promises.rename;
async function heldRename(from: string, to: string): Promise<void> {
  const mine = armed !== undefined && basename(to) === 'state.json' && isAbout(from, armed) ? armed : undefined;
  if (mine === undefined) {
    await rename(from, to);
    return;
  }
  armed = undefined;
  if (mine.moment === 'answered') await rename(from, to);
  release = Promise.withResolvers<undefined>();
  tell({ held: true });
  await release.promise;
  if (mine.moment === 'asked') await rename(from, to);
}
Object.assign(promises, { rename: heldRename });
syncBuiltinESMExports();

function isAbout(path: string, hold: Extract<HookCommand, { kind: 'hold' }>): boolean {
  const { volumes } = JSON.parse(readFileSync(path, 'utf8')) as JournalText;
  return volumes.some((volume) => volume.volumeId === hold.volumeId && volume.state.state === hold.state);
}

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
