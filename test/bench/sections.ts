import { confinement } from './confinement.ts';
import { controller } from './controller.ts';
import { encryption } from './encryption.ts';
import type { Section } from './figures.ts';
import { fio } from './fio.ts';
import { growth } from './growth.ts';
import { hotplug } from './hotplug.ts';
import { memory } from './memory.ts';
import { pods } from './pods.ts';
import type { Bench } from './rig.ts';
import { rpc } from './rpc.ts';
import { start } from './start.ts';
import { stats } from './stats.ts';
import { throughput } from './throughput.ts';

/** Everything that is measured, in order. */
export const SECTIONS: Readonly<Record<string, (bench: Bench) => Promise<Section>>> = {
  hotplug,
  start,
  confinement,
  pods,
  memory,
  growth,
  rpc,
  stats,
  controller,
  encryption,
  throughput,
  fio,
};
