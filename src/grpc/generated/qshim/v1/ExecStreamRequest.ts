// Original file: proto/qshim/v1/sandboxes.proto

import type { ExecStreamStart as _qshim_v1_ExecStreamStart, ExecStreamStart__Output as _qshim_v1_ExecStreamStart__Output } from '../../qshim/v1/ExecStreamStart.ts';
import type { ExecStreamInputEnd as _qshim_v1_ExecStreamInputEnd, ExecStreamInputEnd__Output as _qshim_v1_ExecStreamInputEnd__Output } from '../../qshim/v1/ExecStreamInputEnd.ts';
import type { TerminalSize as _qshim_v1_TerminalSize, TerminalSize__Output as _qshim_v1_TerminalSize__Output } from '../../qshim/v1/TerminalSize.ts';

export interface ExecStreamRequest {
  'start'?: (_qshim_v1_ExecStreamStart | null);
  'standardInput'?: (Buffer | Uint8Array | string);
  'standardInputEnd'?: (_qshim_v1_ExecStreamInputEnd | null);
  'terminalSize'?: (_qshim_v1_TerminalSize | null);
  'signal'?: (number);
  'message'?: "start"|"standardInput"|"standardInputEnd"|"terminalSize"|"signal";
}

export interface ExecStreamRequest__Output {
  'start'?: (_qshim_v1_ExecStreamStart__Output | null);
  'standardInput'?: (Buffer);
  'standardInputEnd'?: (_qshim_v1_ExecStreamInputEnd__Output | null);
  'terminalSize'?: (_qshim_v1_TerminalSize__Output | null);
  'signal'?: (number);
  'message'?: "start"|"standardInput"|"standardInputEnd"|"terminalSize"|"signal";
}
