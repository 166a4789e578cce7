import { access } from 'node:fs/promises';

/** Of util-linux: the kernel ends the process when its parent ends (PR_SET_PDEATHSIG), which Node cannot ask for. */
const SETPRIV = '/usr/bin/setpriv';

export interface TiedCommand {
  readonly file: string;
  /** Come before the program's own arguments. */
  readonly prefix: readonly string[];
}

/** How to start a program that dies with this process, where the host can do that; else plainly. */
export async function tiedCommand(binary: string): Promise<TiedCommand> {
  return await access(SETPRIV).then(
    () => ({ file: SETPRIV, prefix: ['--pdeathsig', 'KILL', '--', binary] }),
    () => ({ file: binary, prefix: [] }),
  );
}
