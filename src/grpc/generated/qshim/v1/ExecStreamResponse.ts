// Original file: proto/qshim/v1/sandboxes.proto

import type { ExecStreamStarted as _qshim_v1_ExecStreamStarted, ExecStreamStarted__Output as _qshim_v1_ExecStreamStarted__Output } from '../../qshim/v1/ExecStreamStarted.ts';
import type { ExecStreamExited as _qshim_v1_ExecStreamExited, ExecStreamExited__Output as _qshim_v1_ExecStreamExited__Output } from '../../qshim/v1/ExecStreamExited.ts';

export interface ExecStreamResponse {
  'started'?: (_qshim_v1_ExecStreamStarted | null);
  'standardOutput'?: (Buffer | Uint8Array | string);
  'standardError'?: (Buffer | Uint8Array | string);
  'exited'?: (_qshim_v1_ExecStreamExited | null);
  'message'?: "started"|"standardOutput"|"standardError"|"exited";
}

export interface ExecStreamResponse__Output {
  'started'?: (_qshim_v1_ExecStreamStarted__Output | null);
  'standardOutput'?: (Buffer);
  'standardError'?: (Buffer);
  'exited'?: (_qshim_v1_ExecStreamExited__Output | null);
  'message'?: "started"|"standardOutput"|"standardError"|"exited";
}
