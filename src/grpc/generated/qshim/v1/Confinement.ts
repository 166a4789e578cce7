// Original file: proto/qshim/v1/sandboxes.proto

import type { ConfinementLevel as _qshim_v1_ConfinementLevel, ConfinementLevel__Output as _qshim_v1_ConfinementLevel__Output } from '../../qshim/v1/ConfinementLevel.ts';
import type { MissingWall as _qshim_v1_MissingWall, MissingWall__Output as _qshim_v1_MissingWall__Output } from '../../qshim/v1/MissingWall.ts';

export interface Confinement {
  'level'?: (_qshim_v1_ConfinementLevel);
  'uid'?: (number);
  'missing'?: (_qshim_v1_MissingWall)[];
}

export interface Confinement__Output {
  'level': (_qshim_v1_ConfinementLevel__Output);
  'uid': (number);
  'missing': (_qshim_v1_MissingWall__Output)[];
}
