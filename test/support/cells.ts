import { silentLogger } from '../../src/base/log.ts';
import { Cells } from '../../src/confine/cells.ts';
import { configWith, type Config } from '../../src/config.ts';

/** Cells of a daemon that confines nothing; with other options, of one that does. */
export async function cellsFor(config: Partial<Config> = {}): Promise<Cells> {
  return await Cells.open(configWith({ confine: 'off', ...config }), silentLogger());
}
