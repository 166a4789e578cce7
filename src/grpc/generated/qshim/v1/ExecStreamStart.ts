// Original file: proto/qshim/v1/sandboxes.proto

import type { TerminalSize as _qshim_v1_TerminalSize, TerminalSize__Output as _qshim_v1_TerminalSize__Output } from '../../qshim/v1/TerminalSize.ts';

export interface ExecStreamStart {
  'sandboxId'?: (string);
  'path'?: (string);
  'arguments'?: (string)[];
  'environment'?: (string)[];
  'workingDirectory'?: (string);
  'terminal'?: (_qshim_v1_TerminalSize | null);
}

export interface ExecStreamStart__Output {
  'sandboxId': (string);
  'path': (string);
  'arguments': (string)[];
  'environment': (string)[];
  'workingDirectory': (string);
  'terminal': (_qshim_v1_TerminalSize__Output | null);
}
