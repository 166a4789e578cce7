import type * as grpc from '@grpc/grpc-js';
import type { EnumTypeDefinition, MessageTypeDefinition } from '@grpc/proto-loader';

import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from './google/protobuf/Timestamp.ts';
import type { BootImages as _qshim_v1_BootImages, BootImages__Output as _qshim_v1_BootImages__Output } from './qshim/v1/BootImages.ts';
import type { Capacity as _qshim_v1_Capacity, Capacity__Output as _qshim_v1_Capacity__Output } from './qshim/v1/Capacity.ts';
import type { Cause as _qshim_v1_Cause, Cause__Output as _qshim_v1_Cause__Output } from './qshim/v1/Cause.ts';
import type { Confinement as _qshim_v1_Confinement, Confinement__Output as _qshim_v1_Confinement__Output } from './qshim/v1/Confinement.ts';
import type { ConsoleChunk as _qshim_v1_ConsoleChunk, ConsoleChunk__Output as _qshim_v1_ConsoleChunk__Output } from './qshim/v1/ConsoleChunk.ts';
import type { ConsoleRequest as _qshim_v1_ConsoleRequest, ConsoleRequest__Output as _qshim_v1_ConsoleRequest__Output } from './qshim/v1/ConsoleRequest.ts';
import type { CreateSandboxRequest as _qshim_v1_CreateSandboxRequest, CreateSandboxRequest__Output as _qshim_v1_CreateSandboxRequest__Output } from './qshim/v1/CreateSandboxRequest.ts';
import type { DeleteSandboxRequest as _qshim_v1_DeleteSandboxRequest, DeleteSandboxRequest__Output as _qshim_v1_DeleteSandboxRequest__Output } from './qshim/v1/DeleteSandboxRequest.ts';
import type { DeleteSandboxResponse as _qshim_v1_DeleteSandboxResponse, DeleteSandboxResponse__Output as _qshim_v1_DeleteSandboxResponse__Output } from './qshim/v1/DeleteSandboxResponse.ts';
import type { Event as _qshim_v1_Event, Event__Output as _qshim_v1_Event__Output } from './qshim/v1/Event.ts';
import type { ExecRequest as _qshim_v1_ExecRequest, ExecRequest__Output as _qshim_v1_ExecRequest__Output } from './qshim/v1/ExecRequest.ts';
import type { ExecResponse as _qshim_v1_ExecResponse, ExecResponse__Output as _qshim_v1_ExecResponse__Output } from './qshim/v1/ExecResponse.ts';
import type { ExecStreamExited as _qshim_v1_ExecStreamExited, ExecStreamExited__Output as _qshim_v1_ExecStreamExited__Output } from './qshim/v1/ExecStreamExited.ts';
import type { ExecStreamInputEnd as _qshim_v1_ExecStreamInputEnd, ExecStreamInputEnd__Output as _qshim_v1_ExecStreamInputEnd__Output } from './qshim/v1/ExecStreamInputEnd.ts';
import type { ExecStreamRequest as _qshim_v1_ExecStreamRequest, ExecStreamRequest__Output as _qshim_v1_ExecStreamRequest__Output } from './qshim/v1/ExecStreamRequest.ts';
import type { ExecStreamResponse as _qshim_v1_ExecStreamResponse, ExecStreamResponse__Output as _qshim_v1_ExecStreamResponse__Output } from './qshim/v1/ExecStreamResponse.ts';
import type { ExecStreamStart as _qshim_v1_ExecStreamStart, ExecStreamStart__Output as _qshim_v1_ExecStreamStart__Output } from './qshim/v1/ExecStreamStart.ts';
import type { ExecStreamStarted as _qshim_v1_ExecStreamStarted, ExecStreamStarted__Output as _qshim_v1_ExecStreamStarted__Output } from './qshim/v1/ExecStreamStarted.ts';
import type { GetSandboxRequest as _qshim_v1_GetSandboxRequest, GetSandboxRequest__Output as _qshim_v1_GetSandboxRequest__Output } from './qshim/v1/GetSandboxRequest.ts';
import type { ListSandboxesRequest as _qshim_v1_ListSandboxesRequest, ListSandboxesRequest__Output as _qshim_v1_ListSandboxesRequest__Output } from './qshim/v1/ListSandboxesRequest.ts';
import type { ListSandboxesResponse as _qshim_v1_ListSandboxesResponse, ListSandboxesResponse__Output as _qshim_v1_ListSandboxesResponse__Output } from './qshim/v1/ListSandboxesResponse.ts';
import type { MissingWall as _qshim_v1_MissingWall, MissingWall__Output as _qshim_v1_MissingWall__Output } from './qshim/v1/MissingWall.ts';
import type { PauseSandboxRequest as _qshim_v1_PauseSandboxRequest, PauseSandboxRequest__Output as _qshim_v1_PauseSandboxRequest__Output } from './qshim/v1/PauseSandboxRequest.ts';
import type { RebootSandboxRequest as _qshim_v1_RebootSandboxRequest, RebootSandboxRequest__Output as _qshim_v1_RebootSandboxRequest__Output } from './qshim/v1/RebootSandboxRequest.ts';
import type { ResumeSandboxRequest as _qshim_v1_ResumeSandboxRequest, ResumeSandboxRequest__Output as _qshim_v1_ResumeSandboxRequest__Output } from './qshim/v1/ResumeSandboxRequest.ts';
import type { Sandbox as _qshim_v1_Sandbox, Sandbox__Output as _qshim_v1_Sandbox__Output } from './qshim/v1/Sandbox.ts';
import type { SandboxEvent as _qshim_v1_SandboxEvent, SandboxEvent__Output as _qshim_v1_SandboxEvent__Output } from './qshim/v1/SandboxEvent.ts';
import type { SandboxSpec as _qshim_v1_SandboxSpec, SandboxSpec__Output as _qshim_v1_SandboxSpec__Output } from './qshim/v1/SandboxSpec.ts';
import type { SandboxesClient as _qshim_v1_SandboxesClient, SandboxesDefinition as _qshim_v1_SandboxesDefinition } from './qshim/v1/Sandboxes.ts';
import type { Start as _qshim_v1_Start, Start__Output as _qshim_v1_Start__Output } from './qshim/v1/Start.ts';
import type { StartSandboxRequest as _qshim_v1_StartSandboxRequest, StartSandboxRequest__Output as _qshim_v1_StartSandboxRequest__Output } from './qshim/v1/StartSandboxRequest.ts';
import type { StopSandboxRequest as _qshim_v1_StopSandboxRequest, StopSandboxRequest__Output as _qshim_v1_StopSandboxRequest__Output } from './qshim/v1/StopSandboxRequest.ts';
import type { TerminalSize as _qshim_v1_TerminalSize, TerminalSize__Output as _qshim_v1_TerminalSize__Output } from './qshim/v1/TerminalSize.ts';
import type { Timing as _qshim_v1_Timing, Timing__Output as _qshim_v1_Timing__Output } from './qshim/v1/Timing.ts';
import type { WatchSandboxesRequest as _qshim_v1_WatchSandboxesRequest, WatchSandboxesRequest__Output as _qshim_v1_WatchSandboxesRequest__Output } from './qshim/v1/WatchSandboxesRequest.ts';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  google: {
    protobuf: {
      Timestamp: MessageTypeDefinition<_google_protobuf_Timestamp, _google_protobuf_Timestamp__Output>
    }
  }
  qshim: {
    v1: {
      Accelerator: EnumTypeDefinition
      BootImages: MessageTypeDefinition<_qshim_v1_BootImages, _qshim_v1_BootImages__Output>
      Capacity: MessageTypeDefinition<_qshim_v1_Capacity, _qshim_v1_Capacity__Output>
      Cause: MessageTypeDefinition<_qshim_v1_Cause, _qshim_v1_Cause__Output>
      Confinement: MessageTypeDefinition<_qshim_v1_Confinement, _qshim_v1_Confinement__Output>
      ConfinementLevel: EnumTypeDefinition
      ConsoleChunk: MessageTypeDefinition<_qshim_v1_ConsoleChunk, _qshim_v1_ConsoleChunk__Output>
      ConsoleRequest: MessageTypeDefinition<_qshim_v1_ConsoleRequest, _qshim_v1_ConsoleRequest__Output>
      CreateSandboxRequest: MessageTypeDefinition<_qshim_v1_CreateSandboxRequest, _qshim_v1_CreateSandboxRequest__Output>
      DeleteSandboxRequest: MessageTypeDefinition<_qshim_v1_DeleteSandboxRequest, _qshim_v1_DeleteSandboxRequest__Output>
      DeleteSandboxResponse: MessageTypeDefinition<_qshim_v1_DeleteSandboxResponse, _qshim_v1_DeleteSandboxResponse__Output>
      Event: MessageTypeDefinition<_qshim_v1_Event, _qshim_v1_Event__Output>
      ExecRequest: MessageTypeDefinition<_qshim_v1_ExecRequest, _qshim_v1_ExecRequest__Output>
      ExecResponse: MessageTypeDefinition<_qshim_v1_ExecResponse, _qshim_v1_ExecResponse__Output>
      ExecStreamExited: MessageTypeDefinition<_qshim_v1_ExecStreamExited, _qshim_v1_ExecStreamExited__Output>
      ExecStreamInputEnd: MessageTypeDefinition<_qshim_v1_ExecStreamInputEnd, _qshim_v1_ExecStreamInputEnd__Output>
      ExecStreamRequest: MessageTypeDefinition<_qshim_v1_ExecStreamRequest, _qshim_v1_ExecStreamRequest__Output>
      ExecStreamResponse: MessageTypeDefinition<_qshim_v1_ExecStreamResponse, _qshim_v1_ExecStreamResponse__Output>
      ExecStreamStart: MessageTypeDefinition<_qshim_v1_ExecStreamStart, _qshim_v1_ExecStreamStart__Output>
      ExecStreamStarted: MessageTypeDefinition<_qshim_v1_ExecStreamStarted, _qshim_v1_ExecStreamStarted__Output>
      GetSandboxRequest: MessageTypeDefinition<_qshim_v1_GetSandboxRequest, _qshim_v1_GetSandboxRequest__Output>
      ListSandboxesRequest: MessageTypeDefinition<_qshim_v1_ListSandboxesRequest, _qshim_v1_ListSandboxesRequest__Output>
      ListSandboxesResponse: MessageTypeDefinition<_qshim_v1_ListSandboxesResponse, _qshim_v1_ListSandboxesResponse__Output>
      MissingWall: MessageTypeDefinition<_qshim_v1_MissingWall, _qshim_v1_MissingWall__Output>
      PauseSandboxRequest: MessageTypeDefinition<_qshim_v1_PauseSandboxRequest, _qshim_v1_PauseSandboxRequest__Output>
      ReadyWhen: EnumTypeDefinition
      RebootSandboxRequest: MessageTypeDefinition<_qshim_v1_RebootSandboxRequest, _qshim_v1_RebootSandboxRequest__Output>
      ResumeSandboxRequest: MessageTypeDefinition<_qshim_v1_ResumeSandboxRequest, _qshim_v1_ResumeSandboxRequest__Output>
      Sandbox: MessageTypeDefinition<_qshim_v1_Sandbox, _qshim_v1_Sandbox__Output>
      SandboxEvent: MessageTypeDefinition<_qshim_v1_SandboxEvent, _qshim_v1_SandboxEvent__Output>
      SandboxSpec: MessageTypeDefinition<_qshim_v1_SandboxSpec, _qshim_v1_SandboxSpec__Output>
      SandboxState: EnumTypeDefinition
      Sandboxes: SubtypeConstructor<typeof grpc.Client, _qshim_v1_SandboxesClient> & { service: _qshim_v1_SandboxesDefinition }
      Start: MessageTypeDefinition<_qshim_v1_Start, _qshim_v1_Start__Output>
      StartKind: EnumTypeDefinition
      StartSandboxRequest: MessageTypeDefinition<_qshim_v1_StartSandboxRequest, _qshim_v1_StartSandboxRequest__Output>
      StopSandboxRequest: MessageTypeDefinition<_qshim_v1_StopSandboxRequest, _qshim_v1_StopSandboxRequest__Output>
      TemplateUse: EnumTypeDefinition
      TerminalSize: MessageTypeDefinition<_qshim_v1_TerminalSize, _qshim_v1_TerminalSize__Output>
      Timing: MessageTypeDefinition<_qshim_v1_Timing, _qshim_v1_Timing__Output>
      WatchSandboxesRequest: MessageTypeDefinition<_qshim_v1_WatchSandboxesRequest, _qshim_v1_WatchSandboxesRequest__Output>
    }
  }
}

