// Original file: proto/qshim/v1/sandboxes.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { ConsoleChunk as _qshim_v1_ConsoleChunk, ConsoleChunk__Output as _qshim_v1_ConsoleChunk__Output } from '../../qshim/v1/ConsoleChunk.ts';
import type { ConsoleRequest as _qshim_v1_ConsoleRequest, ConsoleRequest__Output as _qshim_v1_ConsoleRequest__Output } from '../../qshim/v1/ConsoleRequest.ts';
import type { CreateSandboxRequest as _qshim_v1_CreateSandboxRequest, CreateSandboxRequest__Output as _qshim_v1_CreateSandboxRequest__Output } from '../../qshim/v1/CreateSandboxRequest.ts';
import type { DeleteSandboxRequest as _qshim_v1_DeleteSandboxRequest, DeleteSandboxRequest__Output as _qshim_v1_DeleteSandboxRequest__Output } from '../../qshim/v1/DeleteSandboxRequest.ts';
import type { DeleteSandboxResponse as _qshim_v1_DeleteSandboxResponse, DeleteSandboxResponse__Output as _qshim_v1_DeleteSandboxResponse__Output } from '../../qshim/v1/DeleteSandboxResponse.ts';
import type { ExecRequest as _qshim_v1_ExecRequest, ExecRequest__Output as _qshim_v1_ExecRequest__Output } from '../../qshim/v1/ExecRequest.ts';
import type { ExecResponse as _qshim_v1_ExecResponse, ExecResponse__Output as _qshim_v1_ExecResponse__Output } from '../../qshim/v1/ExecResponse.ts';
import type { ExecStreamRequest as _qshim_v1_ExecStreamRequest, ExecStreamRequest__Output as _qshim_v1_ExecStreamRequest__Output } from '../../qshim/v1/ExecStreamRequest.ts';
import type { ExecStreamResponse as _qshim_v1_ExecStreamResponse, ExecStreamResponse__Output as _qshim_v1_ExecStreamResponse__Output } from '../../qshim/v1/ExecStreamResponse.ts';
import type { GetSandboxRequest as _qshim_v1_GetSandboxRequest, GetSandboxRequest__Output as _qshim_v1_GetSandboxRequest__Output } from '../../qshim/v1/GetSandboxRequest.ts';
import type { ListSandboxesRequest as _qshim_v1_ListSandboxesRequest, ListSandboxesRequest__Output as _qshim_v1_ListSandboxesRequest__Output } from '../../qshim/v1/ListSandboxesRequest.ts';
import type { ListSandboxesResponse as _qshim_v1_ListSandboxesResponse, ListSandboxesResponse__Output as _qshim_v1_ListSandboxesResponse__Output } from '../../qshim/v1/ListSandboxesResponse.ts';
import type { PauseSandboxRequest as _qshim_v1_PauseSandboxRequest, PauseSandboxRequest__Output as _qshim_v1_PauseSandboxRequest__Output } from '../../qshim/v1/PauseSandboxRequest.ts';
import type { RebootSandboxRequest as _qshim_v1_RebootSandboxRequest, RebootSandboxRequest__Output as _qshim_v1_RebootSandboxRequest__Output } from '../../qshim/v1/RebootSandboxRequest.ts';
import type { ResumeSandboxRequest as _qshim_v1_ResumeSandboxRequest, ResumeSandboxRequest__Output as _qshim_v1_ResumeSandboxRequest__Output } from '../../qshim/v1/ResumeSandboxRequest.ts';
import type { Sandbox as _qshim_v1_Sandbox, Sandbox__Output as _qshim_v1_Sandbox__Output } from '../../qshim/v1/Sandbox.ts';
import type { SandboxEvent as _qshim_v1_SandboxEvent, SandboxEvent__Output as _qshim_v1_SandboxEvent__Output } from '../../qshim/v1/SandboxEvent.ts';
import type { StartSandboxRequest as _qshim_v1_StartSandboxRequest, StartSandboxRequest__Output as _qshim_v1_StartSandboxRequest__Output } from '../../qshim/v1/StartSandboxRequest.ts';
import type { StopSandboxRequest as _qshim_v1_StopSandboxRequest, StopSandboxRequest__Output as _qshim_v1_StopSandboxRequest__Output } from '../../qshim/v1/StopSandboxRequest.ts';
import type { WatchSandboxesRequest as _qshim_v1_WatchSandboxesRequest, WatchSandboxesRequest__Output as _qshim_v1_WatchSandboxesRequest__Output } from '../../qshim/v1/WatchSandboxesRequest.ts';

export interface SandboxesClient extends grpc.Client {
  Console(argument: _qshim_v1_ConsoleRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_ConsoleChunk__Output>;
  Console(argument: _qshim_v1_ConsoleRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_ConsoleChunk__Output>;
  console(argument: _qshim_v1_ConsoleRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_ConsoleChunk__Output>;
  console(argument: _qshim_v1_ConsoleRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_ConsoleChunk__Output>;
  
  Create(argument: _qshim_v1_CreateSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Create(argument: _qshim_v1_CreateSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Create(argument: _qshim_v1_CreateSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Create(argument: _qshim_v1_CreateSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  create(argument: _qshim_v1_CreateSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  create(argument: _qshim_v1_CreateSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  create(argument: _qshim_v1_CreateSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  create(argument: _qshim_v1_CreateSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  
  Delete(argument: _qshim_v1_DeleteSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_DeleteSandboxResponse__Output>): grpc.ClientUnaryCall;
  Delete(argument: _qshim_v1_DeleteSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_DeleteSandboxResponse__Output>): grpc.ClientUnaryCall;
  Delete(argument: _qshim_v1_DeleteSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_DeleteSandboxResponse__Output>): grpc.ClientUnaryCall;
  Delete(argument: _qshim_v1_DeleteSandboxRequest, callback: grpc.requestCallback<_qshim_v1_DeleteSandboxResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _qshim_v1_DeleteSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_DeleteSandboxResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _qshim_v1_DeleteSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_DeleteSandboxResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _qshim_v1_DeleteSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_DeleteSandboxResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _qshim_v1_DeleteSandboxRequest, callback: grpc.requestCallback<_qshim_v1_DeleteSandboxResponse__Output>): grpc.ClientUnaryCall;
  
  Exec(argument: _qshim_v1_ExecRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ExecResponse__Output>): grpc.ClientUnaryCall;
  Exec(argument: _qshim_v1_ExecRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ExecResponse__Output>): grpc.ClientUnaryCall;
  Exec(argument: _qshim_v1_ExecRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ExecResponse__Output>): grpc.ClientUnaryCall;
  Exec(argument: _qshim_v1_ExecRequest, callback: grpc.requestCallback<_qshim_v1_ExecResponse__Output>): grpc.ClientUnaryCall;
  exec(argument: _qshim_v1_ExecRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ExecResponse__Output>): grpc.ClientUnaryCall;
  exec(argument: _qshim_v1_ExecRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ExecResponse__Output>): grpc.ClientUnaryCall;
  exec(argument: _qshim_v1_ExecRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ExecResponse__Output>): grpc.ClientUnaryCall;
  exec(argument: _qshim_v1_ExecRequest, callback: grpc.requestCallback<_qshim_v1_ExecResponse__Output>): grpc.ClientUnaryCall;
  
  ExecStream(metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientDuplexStream<_qshim_v1_ExecStreamRequest, _qshim_v1_ExecStreamResponse__Output>;
  ExecStream(options?: grpc.CallOptions): grpc.ClientDuplexStream<_qshim_v1_ExecStreamRequest, _qshim_v1_ExecStreamResponse__Output>;
  execStream(metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientDuplexStream<_qshim_v1_ExecStreamRequest, _qshim_v1_ExecStreamResponse__Output>;
  execStream(options?: grpc.CallOptions): grpc.ClientDuplexStream<_qshim_v1_ExecStreamRequest, _qshim_v1_ExecStreamResponse__Output>;
  
  Get(argument: _qshim_v1_GetSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  
  List(argument: _qshim_v1_ListSandboxesRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListSandboxesResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListSandboxesRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListSandboxesResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListSandboxesRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListSandboxesResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListSandboxesRequest, callback: grpc.requestCallback<_qshim_v1_ListSandboxesResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListSandboxesRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListSandboxesResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListSandboxesRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListSandboxesResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListSandboxesRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListSandboxesResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListSandboxesRequest, callback: grpc.requestCallback<_qshim_v1_ListSandboxesResponse__Output>): grpc.ClientUnaryCall;
  
  Pause(argument: _qshim_v1_PauseSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Pause(argument: _qshim_v1_PauseSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Pause(argument: _qshim_v1_PauseSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Pause(argument: _qshim_v1_PauseSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  pause(argument: _qshim_v1_PauseSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  pause(argument: _qshim_v1_PauseSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  pause(argument: _qshim_v1_PauseSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  pause(argument: _qshim_v1_PauseSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  
  Reboot(argument: _qshim_v1_RebootSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Reboot(argument: _qshim_v1_RebootSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Reboot(argument: _qshim_v1_RebootSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Reboot(argument: _qshim_v1_RebootSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  reboot(argument: _qshim_v1_RebootSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  reboot(argument: _qshim_v1_RebootSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  reboot(argument: _qshim_v1_RebootSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  reboot(argument: _qshim_v1_RebootSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  
  Resume(argument: _qshim_v1_ResumeSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Resume(argument: _qshim_v1_ResumeSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Resume(argument: _qshim_v1_ResumeSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Resume(argument: _qshim_v1_ResumeSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  resume(argument: _qshim_v1_ResumeSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  resume(argument: _qshim_v1_ResumeSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  resume(argument: _qshim_v1_ResumeSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  resume(argument: _qshim_v1_ResumeSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  
  Start(argument: _qshim_v1_StartSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Start(argument: _qshim_v1_StartSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Start(argument: _qshim_v1_StartSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Start(argument: _qshim_v1_StartSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  start(argument: _qshim_v1_StartSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  start(argument: _qshim_v1_StartSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  start(argument: _qshim_v1_StartSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  start(argument: _qshim_v1_StartSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  
  Stop(argument: _qshim_v1_StopSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Stop(argument: _qshim_v1_StopSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Stop(argument: _qshim_v1_StopSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  Stop(argument: _qshim_v1_StopSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  stop(argument: _qshim_v1_StopSandboxRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  stop(argument: _qshim_v1_StopSandboxRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  stop(argument: _qshim_v1_StopSandboxRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  stop(argument: _qshim_v1_StopSandboxRequest, callback: grpc.requestCallback<_qshim_v1_Sandbox__Output>): grpc.ClientUnaryCall;
  
  Watch(argument: _qshim_v1_WatchSandboxesRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_SandboxEvent__Output>;
  Watch(argument: _qshim_v1_WatchSandboxesRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_SandboxEvent__Output>;
  watch(argument: _qshim_v1_WatchSandboxesRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_SandboxEvent__Output>;
  watch(argument: _qshim_v1_WatchSandboxesRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_SandboxEvent__Output>;
  
}

export interface SandboxesHandlers extends grpc.UntypedServiceImplementation {
  Console: grpc.handleServerStreamingCall<_qshim_v1_ConsoleRequest__Output, _qshim_v1_ConsoleChunk>;
  
  Create: grpc.handleUnaryCall<_qshim_v1_CreateSandboxRequest__Output, _qshim_v1_Sandbox>;
  
  Delete: grpc.handleUnaryCall<_qshim_v1_DeleteSandboxRequest__Output, _qshim_v1_DeleteSandboxResponse>;
  
  Exec: grpc.handleUnaryCall<_qshim_v1_ExecRequest__Output, _qshim_v1_ExecResponse>;
  
  ExecStream: grpc.handleBidiStreamingCall<_qshim_v1_ExecStreamRequest__Output, _qshim_v1_ExecStreamResponse>;
  
  Get: grpc.handleUnaryCall<_qshim_v1_GetSandboxRequest__Output, _qshim_v1_Sandbox>;
  
  List: grpc.handleUnaryCall<_qshim_v1_ListSandboxesRequest__Output, _qshim_v1_ListSandboxesResponse>;
  
  Pause: grpc.handleUnaryCall<_qshim_v1_PauseSandboxRequest__Output, _qshim_v1_Sandbox>;
  
  Reboot: grpc.handleUnaryCall<_qshim_v1_RebootSandboxRequest__Output, _qshim_v1_Sandbox>;
  
  Resume: grpc.handleUnaryCall<_qshim_v1_ResumeSandboxRequest__Output, _qshim_v1_Sandbox>;
  
  Start: grpc.handleUnaryCall<_qshim_v1_StartSandboxRequest__Output, _qshim_v1_Sandbox>;
  
  Stop: grpc.handleUnaryCall<_qshim_v1_StopSandboxRequest__Output, _qshim_v1_Sandbox>;
  
  Watch: grpc.handleServerStreamingCall<_qshim_v1_WatchSandboxesRequest__Output, _qshim_v1_SandboxEvent>;
  
}

export interface SandboxesDefinition extends grpc.ServiceDefinition {
  Console: MethodDefinition<_qshim_v1_ConsoleRequest, _qshim_v1_ConsoleChunk, _qshim_v1_ConsoleRequest__Output, _qshim_v1_ConsoleChunk__Output>
  Create: MethodDefinition<_qshim_v1_CreateSandboxRequest, _qshim_v1_Sandbox, _qshim_v1_CreateSandboxRequest__Output, _qshim_v1_Sandbox__Output>
  Delete: MethodDefinition<_qshim_v1_DeleteSandboxRequest, _qshim_v1_DeleteSandboxResponse, _qshim_v1_DeleteSandboxRequest__Output, _qshim_v1_DeleteSandboxResponse__Output>
  Exec: MethodDefinition<_qshim_v1_ExecRequest, _qshim_v1_ExecResponse, _qshim_v1_ExecRequest__Output, _qshim_v1_ExecResponse__Output>
  ExecStream: MethodDefinition<_qshim_v1_ExecStreamRequest, _qshim_v1_ExecStreamResponse, _qshim_v1_ExecStreamRequest__Output, _qshim_v1_ExecStreamResponse__Output>
  Get: MethodDefinition<_qshim_v1_GetSandboxRequest, _qshim_v1_Sandbox, _qshim_v1_GetSandboxRequest__Output, _qshim_v1_Sandbox__Output>
  List: MethodDefinition<_qshim_v1_ListSandboxesRequest, _qshim_v1_ListSandboxesResponse, _qshim_v1_ListSandboxesRequest__Output, _qshim_v1_ListSandboxesResponse__Output>
  Pause: MethodDefinition<_qshim_v1_PauseSandboxRequest, _qshim_v1_Sandbox, _qshim_v1_PauseSandboxRequest__Output, _qshim_v1_Sandbox__Output>
  Reboot: MethodDefinition<_qshim_v1_RebootSandboxRequest, _qshim_v1_Sandbox, _qshim_v1_RebootSandboxRequest__Output, _qshim_v1_Sandbox__Output>
  Resume: MethodDefinition<_qshim_v1_ResumeSandboxRequest, _qshim_v1_Sandbox, _qshim_v1_ResumeSandboxRequest__Output, _qshim_v1_Sandbox__Output>
  Start: MethodDefinition<_qshim_v1_StartSandboxRequest, _qshim_v1_Sandbox, _qshim_v1_StartSandboxRequest__Output, _qshim_v1_Sandbox__Output>
  Stop: MethodDefinition<_qshim_v1_StopSandboxRequest, _qshim_v1_Sandbox, _qshim_v1_StopSandboxRequest__Output, _qshim_v1_Sandbox__Output>
  Watch: MethodDefinition<_qshim_v1_WatchSandboxesRequest, _qshim_v1_SandboxEvent, _qshim_v1_WatchSandboxesRequest__Output, _qshim_v1_SandboxEvent__Output>
}
