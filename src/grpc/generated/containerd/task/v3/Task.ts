// Original file: proto/containerd/task.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { CheckpointTaskRequest as _containerd_task_v3_CheckpointTaskRequest, CheckpointTaskRequest__Output as _containerd_task_v3_CheckpointTaskRequest__Output } from '../../../containerd/task/v3/CheckpointTaskRequest.ts';
import type { CloseIORequest as _containerd_task_v3_CloseIORequest, CloseIORequest__Output as _containerd_task_v3_CloseIORequest__Output } from '../../../containerd/task/v3/CloseIORequest.ts';
import type { ConnectRequest as _containerd_task_v3_ConnectRequest, ConnectRequest__Output as _containerd_task_v3_ConnectRequest__Output } from '../../../containerd/task/v3/ConnectRequest.ts';
import type { ConnectResponse as _containerd_task_v3_ConnectResponse, ConnectResponse__Output as _containerd_task_v3_ConnectResponse__Output } from '../../../containerd/task/v3/ConnectResponse.ts';
import type { CreateTaskRequest as _containerd_task_v3_CreateTaskRequest, CreateTaskRequest__Output as _containerd_task_v3_CreateTaskRequest__Output } from '../../../containerd/task/v3/CreateTaskRequest.ts';
import type { CreateTaskResponse as _containerd_task_v3_CreateTaskResponse, CreateTaskResponse__Output as _containerd_task_v3_CreateTaskResponse__Output } from '../../../containerd/task/v3/CreateTaskResponse.ts';
import type { DeleteRequest as _containerd_task_v3_DeleteRequest, DeleteRequest__Output as _containerd_task_v3_DeleteRequest__Output } from '../../../containerd/task/v3/DeleteRequest.ts';
import type { DeleteResponse as _containerd_task_v3_DeleteResponse, DeleteResponse__Output as _containerd_task_v3_DeleteResponse__Output } from '../../../containerd/task/v3/DeleteResponse.ts';
import type { Empty as _google_protobuf_Empty, Empty__Output as _google_protobuf_Empty__Output } from '../../../google/protobuf/Empty.ts';
import type { ExecProcessRequest as _containerd_task_v3_ExecProcessRequest, ExecProcessRequest__Output as _containerd_task_v3_ExecProcessRequest__Output } from '../../../containerd/task/v3/ExecProcessRequest.ts';
import type { KillRequest as _containerd_task_v3_KillRequest, KillRequest__Output as _containerd_task_v3_KillRequest__Output } from '../../../containerd/task/v3/KillRequest.ts';
import type { PauseRequest as _containerd_task_v3_PauseRequest, PauseRequest__Output as _containerd_task_v3_PauseRequest__Output } from '../../../containerd/task/v3/PauseRequest.ts';
import type { PidsRequest as _containerd_task_v3_PidsRequest, PidsRequest__Output as _containerd_task_v3_PidsRequest__Output } from '../../../containerd/task/v3/PidsRequest.ts';
import type { PidsResponse as _containerd_task_v3_PidsResponse, PidsResponse__Output as _containerd_task_v3_PidsResponse__Output } from '../../../containerd/task/v3/PidsResponse.ts';
import type { ResizePtyRequest as _containerd_task_v3_ResizePtyRequest, ResizePtyRequest__Output as _containerd_task_v3_ResizePtyRequest__Output } from '../../../containerd/task/v3/ResizePtyRequest.ts';
import type { ResumeRequest as _containerd_task_v3_ResumeRequest, ResumeRequest__Output as _containerd_task_v3_ResumeRequest__Output } from '../../../containerd/task/v3/ResumeRequest.ts';
import type { ShutdownRequest as _containerd_task_v3_ShutdownRequest, ShutdownRequest__Output as _containerd_task_v3_ShutdownRequest__Output } from '../../../containerd/task/v3/ShutdownRequest.ts';
import type { StartRequest as _containerd_task_v3_StartRequest, StartRequest__Output as _containerd_task_v3_StartRequest__Output } from '../../../containerd/task/v3/StartRequest.ts';
import type { StartResponse as _containerd_task_v3_StartResponse, StartResponse__Output as _containerd_task_v3_StartResponse__Output } from '../../../containerd/task/v3/StartResponse.ts';
import type { StateRequest as _containerd_task_v3_StateRequest, StateRequest__Output as _containerd_task_v3_StateRequest__Output } from '../../../containerd/task/v3/StateRequest.ts';
import type { StateResponse as _containerd_task_v3_StateResponse, StateResponse__Output as _containerd_task_v3_StateResponse__Output } from '../../../containerd/task/v3/StateResponse.ts';
import type { StatsRequest as _containerd_task_v3_StatsRequest, StatsRequest__Output as _containerd_task_v3_StatsRequest__Output } from '../../../containerd/task/v3/StatsRequest.ts';
import type { StatsResponse as _containerd_task_v3_StatsResponse, StatsResponse__Output as _containerd_task_v3_StatsResponse__Output } from '../../../containerd/task/v3/StatsResponse.ts';
import type { UpdateTaskRequest as _containerd_task_v3_UpdateTaskRequest, UpdateTaskRequest__Output as _containerd_task_v3_UpdateTaskRequest__Output } from '../../../containerd/task/v3/UpdateTaskRequest.ts';
import type { WaitRequest as _containerd_task_v3_WaitRequest, WaitRequest__Output as _containerd_task_v3_WaitRequest__Output } from '../../../containerd/task/v3/WaitRequest.ts';
import type { WaitResponse as _containerd_task_v3_WaitResponse, WaitResponse__Output as _containerd_task_v3_WaitResponse__Output } from '../../../containerd/task/v3/WaitResponse.ts';

export interface TaskClient extends grpc.Client {
  Checkpoint(argument: _containerd_task_v3_CheckpointTaskRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Checkpoint(argument: _containerd_task_v3_CheckpointTaskRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Checkpoint(argument: _containerd_task_v3_CheckpointTaskRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Checkpoint(argument: _containerd_task_v3_CheckpointTaskRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  checkpoint(argument: _containerd_task_v3_CheckpointTaskRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  checkpoint(argument: _containerd_task_v3_CheckpointTaskRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  checkpoint(argument: _containerd_task_v3_CheckpointTaskRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  checkpoint(argument: _containerd_task_v3_CheckpointTaskRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  
  CloseIO(argument: _containerd_task_v3_CloseIORequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  CloseIO(argument: _containerd_task_v3_CloseIORequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  CloseIO(argument: _containerd_task_v3_CloseIORequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  CloseIO(argument: _containerd_task_v3_CloseIORequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  closeIo(argument: _containerd_task_v3_CloseIORequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  closeIo(argument: _containerd_task_v3_CloseIORequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  closeIo(argument: _containerd_task_v3_CloseIORequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  closeIo(argument: _containerd_task_v3_CloseIORequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  
  Connect(argument: _containerd_task_v3_ConnectRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_ConnectResponse__Output>): grpc.ClientUnaryCall;
  Connect(argument: _containerd_task_v3_ConnectRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_ConnectResponse__Output>): grpc.ClientUnaryCall;
  Connect(argument: _containerd_task_v3_ConnectRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_ConnectResponse__Output>): grpc.ClientUnaryCall;
  Connect(argument: _containerd_task_v3_ConnectRequest, callback: grpc.requestCallback<_containerd_task_v3_ConnectResponse__Output>): grpc.ClientUnaryCall;
  connect(argument: _containerd_task_v3_ConnectRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_ConnectResponse__Output>): grpc.ClientUnaryCall;
  connect(argument: _containerd_task_v3_ConnectRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_ConnectResponse__Output>): grpc.ClientUnaryCall;
  connect(argument: _containerd_task_v3_ConnectRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_ConnectResponse__Output>): grpc.ClientUnaryCall;
  connect(argument: _containerd_task_v3_ConnectRequest, callback: grpc.requestCallback<_containerd_task_v3_ConnectResponse__Output>): grpc.ClientUnaryCall;
  
  Create(argument: _containerd_task_v3_CreateTaskRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_CreateTaskResponse__Output>): grpc.ClientUnaryCall;
  Create(argument: _containerd_task_v3_CreateTaskRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_CreateTaskResponse__Output>): grpc.ClientUnaryCall;
  Create(argument: _containerd_task_v3_CreateTaskRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_CreateTaskResponse__Output>): grpc.ClientUnaryCall;
  Create(argument: _containerd_task_v3_CreateTaskRequest, callback: grpc.requestCallback<_containerd_task_v3_CreateTaskResponse__Output>): grpc.ClientUnaryCall;
  create(argument: _containerd_task_v3_CreateTaskRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_CreateTaskResponse__Output>): grpc.ClientUnaryCall;
  create(argument: _containerd_task_v3_CreateTaskRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_CreateTaskResponse__Output>): grpc.ClientUnaryCall;
  create(argument: _containerd_task_v3_CreateTaskRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_CreateTaskResponse__Output>): grpc.ClientUnaryCall;
  create(argument: _containerd_task_v3_CreateTaskRequest, callback: grpc.requestCallback<_containerd_task_v3_CreateTaskResponse__Output>): grpc.ClientUnaryCall;
  
  Delete(argument: _containerd_task_v3_DeleteRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_DeleteResponse__Output>): grpc.ClientUnaryCall;
  Delete(argument: _containerd_task_v3_DeleteRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_DeleteResponse__Output>): grpc.ClientUnaryCall;
  Delete(argument: _containerd_task_v3_DeleteRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_DeleteResponse__Output>): grpc.ClientUnaryCall;
  Delete(argument: _containerd_task_v3_DeleteRequest, callback: grpc.requestCallback<_containerd_task_v3_DeleteResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _containerd_task_v3_DeleteRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_DeleteResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _containerd_task_v3_DeleteRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_DeleteResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _containerd_task_v3_DeleteRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_DeleteResponse__Output>): grpc.ClientUnaryCall;
  delete(argument: _containerd_task_v3_DeleteRequest, callback: grpc.requestCallback<_containerd_task_v3_DeleteResponse__Output>): grpc.ClientUnaryCall;
  
  Exec(argument: _containerd_task_v3_ExecProcessRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Exec(argument: _containerd_task_v3_ExecProcessRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Exec(argument: _containerd_task_v3_ExecProcessRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Exec(argument: _containerd_task_v3_ExecProcessRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  exec(argument: _containerd_task_v3_ExecProcessRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  exec(argument: _containerd_task_v3_ExecProcessRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  exec(argument: _containerd_task_v3_ExecProcessRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  exec(argument: _containerd_task_v3_ExecProcessRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  
  Kill(argument: _containerd_task_v3_KillRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Kill(argument: _containerd_task_v3_KillRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Kill(argument: _containerd_task_v3_KillRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Kill(argument: _containerd_task_v3_KillRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  kill(argument: _containerd_task_v3_KillRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  kill(argument: _containerd_task_v3_KillRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  kill(argument: _containerd_task_v3_KillRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  kill(argument: _containerd_task_v3_KillRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  
  Pause(argument: _containerd_task_v3_PauseRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Pause(argument: _containerd_task_v3_PauseRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Pause(argument: _containerd_task_v3_PauseRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Pause(argument: _containerd_task_v3_PauseRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  pause(argument: _containerd_task_v3_PauseRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  pause(argument: _containerd_task_v3_PauseRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  pause(argument: _containerd_task_v3_PauseRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  pause(argument: _containerd_task_v3_PauseRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  
  Pids(argument: _containerd_task_v3_PidsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_PidsResponse__Output>): grpc.ClientUnaryCall;
  Pids(argument: _containerd_task_v3_PidsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_PidsResponse__Output>): grpc.ClientUnaryCall;
  Pids(argument: _containerd_task_v3_PidsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_PidsResponse__Output>): grpc.ClientUnaryCall;
  Pids(argument: _containerd_task_v3_PidsRequest, callback: grpc.requestCallback<_containerd_task_v3_PidsResponse__Output>): grpc.ClientUnaryCall;
  pids(argument: _containerd_task_v3_PidsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_PidsResponse__Output>): grpc.ClientUnaryCall;
  pids(argument: _containerd_task_v3_PidsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_PidsResponse__Output>): grpc.ClientUnaryCall;
  pids(argument: _containerd_task_v3_PidsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_PidsResponse__Output>): grpc.ClientUnaryCall;
  pids(argument: _containerd_task_v3_PidsRequest, callback: grpc.requestCallback<_containerd_task_v3_PidsResponse__Output>): grpc.ClientUnaryCall;
  
  ResizePty(argument: _containerd_task_v3_ResizePtyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  ResizePty(argument: _containerd_task_v3_ResizePtyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  ResizePty(argument: _containerd_task_v3_ResizePtyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  ResizePty(argument: _containerd_task_v3_ResizePtyRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  resizePty(argument: _containerd_task_v3_ResizePtyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  resizePty(argument: _containerd_task_v3_ResizePtyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  resizePty(argument: _containerd_task_v3_ResizePtyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  resizePty(argument: _containerd_task_v3_ResizePtyRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  
  Resume(argument: _containerd_task_v3_ResumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Resume(argument: _containerd_task_v3_ResumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Resume(argument: _containerd_task_v3_ResumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Resume(argument: _containerd_task_v3_ResumeRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  resume(argument: _containerd_task_v3_ResumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  resume(argument: _containerd_task_v3_ResumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  resume(argument: _containerd_task_v3_ResumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  resume(argument: _containerd_task_v3_ResumeRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  
  Shutdown(argument: _containerd_task_v3_ShutdownRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Shutdown(argument: _containerd_task_v3_ShutdownRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Shutdown(argument: _containerd_task_v3_ShutdownRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Shutdown(argument: _containerd_task_v3_ShutdownRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  shutdown(argument: _containerd_task_v3_ShutdownRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  shutdown(argument: _containerd_task_v3_ShutdownRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  shutdown(argument: _containerd_task_v3_ShutdownRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  shutdown(argument: _containerd_task_v3_ShutdownRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  
  Start(argument: _containerd_task_v3_StartRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StartResponse__Output>): grpc.ClientUnaryCall;
  Start(argument: _containerd_task_v3_StartRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_StartResponse__Output>): grpc.ClientUnaryCall;
  Start(argument: _containerd_task_v3_StartRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StartResponse__Output>): grpc.ClientUnaryCall;
  Start(argument: _containerd_task_v3_StartRequest, callback: grpc.requestCallback<_containerd_task_v3_StartResponse__Output>): grpc.ClientUnaryCall;
  start(argument: _containerd_task_v3_StartRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StartResponse__Output>): grpc.ClientUnaryCall;
  start(argument: _containerd_task_v3_StartRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_StartResponse__Output>): grpc.ClientUnaryCall;
  start(argument: _containerd_task_v3_StartRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StartResponse__Output>): grpc.ClientUnaryCall;
  start(argument: _containerd_task_v3_StartRequest, callback: grpc.requestCallback<_containerd_task_v3_StartResponse__Output>): grpc.ClientUnaryCall;
  
  State(argument: _containerd_task_v3_StateRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StateResponse__Output>): grpc.ClientUnaryCall;
  State(argument: _containerd_task_v3_StateRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_StateResponse__Output>): grpc.ClientUnaryCall;
  State(argument: _containerd_task_v3_StateRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StateResponse__Output>): grpc.ClientUnaryCall;
  State(argument: _containerd_task_v3_StateRequest, callback: grpc.requestCallback<_containerd_task_v3_StateResponse__Output>): grpc.ClientUnaryCall;
  state(argument: _containerd_task_v3_StateRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StateResponse__Output>): grpc.ClientUnaryCall;
  state(argument: _containerd_task_v3_StateRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_StateResponse__Output>): grpc.ClientUnaryCall;
  state(argument: _containerd_task_v3_StateRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StateResponse__Output>): grpc.ClientUnaryCall;
  state(argument: _containerd_task_v3_StateRequest, callback: grpc.requestCallback<_containerd_task_v3_StateResponse__Output>): grpc.ClientUnaryCall;
  
  Stats(argument: _containerd_task_v3_StatsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StatsResponse__Output>): grpc.ClientUnaryCall;
  Stats(argument: _containerd_task_v3_StatsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_StatsResponse__Output>): grpc.ClientUnaryCall;
  Stats(argument: _containerd_task_v3_StatsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StatsResponse__Output>): grpc.ClientUnaryCall;
  Stats(argument: _containerd_task_v3_StatsRequest, callback: grpc.requestCallback<_containerd_task_v3_StatsResponse__Output>): grpc.ClientUnaryCall;
  stats(argument: _containerd_task_v3_StatsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StatsResponse__Output>): grpc.ClientUnaryCall;
  stats(argument: _containerd_task_v3_StatsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_StatsResponse__Output>): grpc.ClientUnaryCall;
  stats(argument: _containerd_task_v3_StatsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_StatsResponse__Output>): grpc.ClientUnaryCall;
  stats(argument: _containerd_task_v3_StatsRequest, callback: grpc.requestCallback<_containerd_task_v3_StatsResponse__Output>): grpc.ClientUnaryCall;
  
  Update(argument: _containerd_task_v3_UpdateTaskRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Update(argument: _containerd_task_v3_UpdateTaskRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Update(argument: _containerd_task_v3_UpdateTaskRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  Update(argument: _containerd_task_v3_UpdateTaskRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  update(argument: _containerd_task_v3_UpdateTaskRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  update(argument: _containerd_task_v3_UpdateTaskRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  update(argument: _containerd_task_v3_UpdateTaskRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  update(argument: _containerd_task_v3_UpdateTaskRequest, callback: grpc.requestCallback<_google_protobuf_Empty__Output>): grpc.ClientUnaryCall;
  
  Wait(argument: _containerd_task_v3_WaitRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_WaitResponse__Output>): grpc.ClientUnaryCall;
  Wait(argument: _containerd_task_v3_WaitRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_WaitResponse__Output>): grpc.ClientUnaryCall;
  Wait(argument: _containerd_task_v3_WaitRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_WaitResponse__Output>): grpc.ClientUnaryCall;
  Wait(argument: _containerd_task_v3_WaitRequest, callback: grpc.requestCallback<_containerd_task_v3_WaitResponse__Output>): grpc.ClientUnaryCall;
  wait(argument: _containerd_task_v3_WaitRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_WaitResponse__Output>): grpc.ClientUnaryCall;
  wait(argument: _containerd_task_v3_WaitRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_containerd_task_v3_WaitResponse__Output>): grpc.ClientUnaryCall;
  wait(argument: _containerd_task_v3_WaitRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_containerd_task_v3_WaitResponse__Output>): grpc.ClientUnaryCall;
  wait(argument: _containerd_task_v3_WaitRequest, callback: grpc.requestCallback<_containerd_task_v3_WaitResponse__Output>): grpc.ClientUnaryCall;
  
}

export interface TaskHandlers extends grpc.UntypedServiceImplementation {
  Checkpoint: grpc.handleUnaryCall<_containerd_task_v3_CheckpointTaskRequest__Output, _google_protobuf_Empty>;
  
  CloseIO: grpc.handleUnaryCall<_containerd_task_v3_CloseIORequest__Output, _google_protobuf_Empty>;
  
  Connect: grpc.handleUnaryCall<_containerd_task_v3_ConnectRequest__Output, _containerd_task_v3_ConnectResponse>;
  
  Create: grpc.handleUnaryCall<_containerd_task_v3_CreateTaskRequest__Output, _containerd_task_v3_CreateTaskResponse>;
  
  Delete: grpc.handleUnaryCall<_containerd_task_v3_DeleteRequest__Output, _containerd_task_v3_DeleteResponse>;
  
  Exec: grpc.handleUnaryCall<_containerd_task_v3_ExecProcessRequest__Output, _google_protobuf_Empty>;
  
  Kill: grpc.handleUnaryCall<_containerd_task_v3_KillRequest__Output, _google_protobuf_Empty>;
  
  Pause: grpc.handleUnaryCall<_containerd_task_v3_PauseRequest__Output, _google_protobuf_Empty>;
  
  Pids: grpc.handleUnaryCall<_containerd_task_v3_PidsRequest__Output, _containerd_task_v3_PidsResponse>;
  
  ResizePty: grpc.handleUnaryCall<_containerd_task_v3_ResizePtyRequest__Output, _google_protobuf_Empty>;
  
  Resume: grpc.handleUnaryCall<_containerd_task_v3_ResumeRequest__Output, _google_protobuf_Empty>;
  
  Shutdown: grpc.handleUnaryCall<_containerd_task_v3_ShutdownRequest__Output, _google_protobuf_Empty>;
  
  Start: grpc.handleUnaryCall<_containerd_task_v3_StartRequest__Output, _containerd_task_v3_StartResponse>;
  
  State: grpc.handleUnaryCall<_containerd_task_v3_StateRequest__Output, _containerd_task_v3_StateResponse>;
  
  Stats: grpc.handleUnaryCall<_containerd_task_v3_StatsRequest__Output, _containerd_task_v3_StatsResponse>;
  
  Update: grpc.handleUnaryCall<_containerd_task_v3_UpdateTaskRequest__Output, _google_protobuf_Empty>;
  
  Wait: grpc.handleUnaryCall<_containerd_task_v3_WaitRequest__Output, _containerd_task_v3_WaitResponse>;
  
}

export interface TaskDefinition extends grpc.ServiceDefinition {
  Checkpoint: MethodDefinition<_containerd_task_v3_CheckpointTaskRequest, _google_protobuf_Empty, _containerd_task_v3_CheckpointTaskRequest__Output, _google_protobuf_Empty__Output>
  CloseIO: MethodDefinition<_containerd_task_v3_CloseIORequest, _google_protobuf_Empty, _containerd_task_v3_CloseIORequest__Output, _google_protobuf_Empty__Output>
  Connect: MethodDefinition<_containerd_task_v3_ConnectRequest, _containerd_task_v3_ConnectResponse, _containerd_task_v3_ConnectRequest__Output, _containerd_task_v3_ConnectResponse__Output>
  Create: MethodDefinition<_containerd_task_v3_CreateTaskRequest, _containerd_task_v3_CreateTaskResponse, _containerd_task_v3_CreateTaskRequest__Output, _containerd_task_v3_CreateTaskResponse__Output>
  Delete: MethodDefinition<_containerd_task_v3_DeleteRequest, _containerd_task_v3_DeleteResponse, _containerd_task_v3_DeleteRequest__Output, _containerd_task_v3_DeleteResponse__Output>
  Exec: MethodDefinition<_containerd_task_v3_ExecProcessRequest, _google_protobuf_Empty, _containerd_task_v3_ExecProcessRequest__Output, _google_protobuf_Empty__Output>
  Kill: MethodDefinition<_containerd_task_v3_KillRequest, _google_protobuf_Empty, _containerd_task_v3_KillRequest__Output, _google_protobuf_Empty__Output>
  Pause: MethodDefinition<_containerd_task_v3_PauseRequest, _google_protobuf_Empty, _containerd_task_v3_PauseRequest__Output, _google_protobuf_Empty__Output>
  Pids: MethodDefinition<_containerd_task_v3_PidsRequest, _containerd_task_v3_PidsResponse, _containerd_task_v3_PidsRequest__Output, _containerd_task_v3_PidsResponse__Output>
  ResizePty: MethodDefinition<_containerd_task_v3_ResizePtyRequest, _google_protobuf_Empty, _containerd_task_v3_ResizePtyRequest__Output, _google_protobuf_Empty__Output>
  Resume: MethodDefinition<_containerd_task_v3_ResumeRequest, _google_protobuf_Empty, _containerd_task_v3_ResumeRequest__Output, _google_protobuf_Empty__Output>
  Shutdown: MethodDefinition<_containerd_task_v3_ShutdownRequest, _google_protobuf_Empty, _containerd_task_v3_ShutdownRequest__Output, _google_protobuf_Empty__Output>
  Start: MethodDefinition<_containerd_task_v3_StartRequest, _containerd_task_v3_StartResponse, _containerd_task_v3_StartRequest__Output, _containerd_task_v3_StartResponse__Output>
  State: MethodDefinition<_containerd_task_v3_StateRequest, _containerd_task_v3_StateResponse, _containerd_task_v3_StateRequest__Output, _containerd_task_v3_StateResponse__Output>
  Stats: MethodDefinition<_containerd_task_v3_StatsRequest, _containerd_task_v3_StatsResponse, _containerd_task_v3_StatsRequest__Output, _containerd_task_v3_StatsResponse__Output>
  Update: MethodDefinition<_containerd_task_v3_UpdateTaskRequest, _google_protobuf_Empty, _containerd_task_v3_UpdateTaskRequest__Output, _google_protobuf_Empty__Output>
  Wait: MethodDefinition<_containerd_task_v3_WaitRequest, _containerd_task_v3_WaitResponse, _containerd_task_v3_WaitRequest__Output, _containerd_task_v3_WaitResponse__Output>
}
