import type * as grpc from '@grpc/grpc-js';
import type { EnumTypeDefinition, MessageTypeDefinition } from '@grpc/proto-loader';

import type { CheckpointTaskRequest as _containerd_task_v3_CheckpointTaskRequest, CheckpointTaskRequest__Output as _containerd_task_v3_CheckpointTaskRequest__Output } from './containerd/task/v3/CheckpointTaskRequest.ts';
import type { CloseIORequest as _containerd_task_v3_CloseIORequest, CloseIORequest__Output as _containerd_task_v3_CloseIORequest__Output } from './containerd/task/v3/CloseIORequest.ts';
import type { ConnectRequest as _containerd_task_v3_ConnectRequest, ConnectRequest__Output as _containerd_task_v3_ConnectRequest__Output } from './containerd/task/v3/ConnectRequest.ts';
import type { ConnectResponse as _containerd_task_v3_ConnectResponse, ConnectResponse__Output as _containerd_task_v3_ConnectResponse__Output } from './containerd/task/v3/ConnectResponse.ts';
import type { CreateTaskRequest as _containerd_task_v3_CreateTaskRequest, CreateTaskRequest__Output as _containerd_task_v3_CreateTaskRequest__Output } from './containerd/task/v3/CreateTaskRequest.ts';
import type { CreateTaskResponse as _containerd_task_v3_CreateTaskResponse, CreateTaskResponse__Output as _containerd_task_v3_CreateTaskResponse__Output } from './containerd/task/v3/CreateTaskResponse.ts';
import type { DeleteRequest as _containerd_task_v3_DeleteRequest, DeleteRequest__Output as _containerd_task_v3_DeleteRequest__Output } from './containerd/task/v3/DeleteRequest.ts';
import type { DeleteResponse as _containerd_task_v3_DeleteResponse, DeleteResponse__Output as _containerd_task_v3_DeleteResponse__Output } from './containerd/task/v3/DeleteResponse.ts';
import type { ExecProcessRequest as _containerd_task_v3_ExecProcessRequest, ExecProcessRequest__Output as _containerd_task_v3_ExecProcessRequest__Output } from './containerd/task/v3/ExecProcessRequest.ts';
import type { KillRequest as _containerd_task_v3_KillRequest, KillRequest__Output as _containerd_task_v3_KillRequest__Output } from './containerd/task/v3/KillRequest.ts';
import type { PauseRequest as _containerd_task_v3_PauseRequest, PauseRequest__Output as _containerd_task_v3_PauseRequest__Output } from './containerd/task/v3/PauseRequest.ts';
import type { PidsRequest as _containerd_task_v3_PidsRequest, PidsRequest__Output as _containerd_task_v3_PidsRequest__Output } from './containerd/task/v3/PidsRequest.ts';
import type { PidsResponse as _containerd_task_v3_PidsResponse, PidsResponse__Output as _containerd_task_v3_PidsResponse__Output } from './containerd/task/v3/PidsResponse.ts';
import type { ResizePtyRequest as _containerd_task_v3_ResizePtyRequest, ResizePtyRequest__Output as _containerd_task_v3_ResizePtyRequest__Output } from './containerd/task/v3/ResizePtyRequest.ts';
import type { ResumeRequest as _containerd_task_v3_ResumeRequest, ResumeRequest__Output as _containerd_task_v3_ResumeRequest__Output } from './containerd/task/v3/ResumeRequest.ts';
import type { ShutdownRequest as _containerd_task_v3_ShutdownRequest, ShutdownRequest__Output as _containerd_task_v3_ShutdownRequest__Output } from './containerd/task/v3/ShutdownRequest.ts';
import type { StartRequest as _containerd_task_v3_StartRequest, StartRequest__Output as _containerd_task_v3_StartRequest__Output } from './containerd/task/v3/StartRequest.ts';
import type { StartResponse as _containerd_task_v3_StartResponse, StartResponse__Output as _containerd_task_v3_StartResponse__Output } from './containerd/task/v3/StartResponse.ts';
import type { StateRequest as _containerd_task_v3_StateRequest, StateRequest__Output as _containerd_task_v3_StateRequest__Output } from './containerd/task/v3/StateRequest.ts';
import type { StateResponse as _containerd_task_v3_StateResponse, StateResponse__Output as _containerd_task_v3_StateResponse__Output } from './containerd/task/v3/StateResponse.ts';
import type { StatsRequest as _containerd_task_v3_StatsRequest, StatsRequest__Output as _containerd_task_v3_StatsRequest__Output } from './containerd/task/v3/StatsRequest.ts';
import type { StatsResponse as _containerd_task_v3_StatsResponse, StatsResponse__Output as _containerd_task_v3_StatsResponse__Output } from './containerd/task/v3/StatsResponse.ts';
import type { TaskClient as _containerd_task_v3_TaskClient, TaskDefinition as _containerd_task_v3_TaskDefinition } from './containerd/task/v3/Task.ts';
import type { UpdateTaskRequest as _containerd_task_v3_UpdateTaskRequest, UpdateTaskRequest__Output as _containerd_task_v3_UpdateTaskRequest__Output } from './containerd/task/v3/UpdateTaskRequest.ts';
import type { WaitRequest as _containerd_task_v3_WaitRequest, WaitRequest__Output as _containerd_task_v3_WaitRequest__Output } from './containerd/task/v3/WaitRequest.ts';
import type { WaitResponse as _containerd_task_v3_WaitResponse, WaitResponse__Output as _containerd_task_v3_WaitResponse__Output } from './containerd/task/v3/WaitResponse.ts';
import type { Envelope as _containerd_types_Envelope, Envelope__Output as _containerd_types_Envelope__Output } from './containerd/types/Envelope.ts';
import type { Metric as _containerd_types_Metric, Metric__Output as _containerd_types_Metric__Output } from './containerd/types/Metric.ts';
import type { Mount as _containerd_types_Mount, Mount__Output as _containerd_types_Mount__Output } from './containerd/types/Mount.ts';
import type { Platform as _containerd_types_Platform, Platform__Output as _containerd_types_Platform__Output } from './containerd/types/Platform.ts';
import type { RuntimeInfo as _containerd_types_RuntimeInfo, RuntimeInfo__Output as _containerd_types_RuntimeInfo__Output } from './containerd/types/RuntimeInfo.ts';
import type { RuntimeVersion as _containerd_types_RuntimeVersion, RuntimeVersion__Output as _containerd_types_RuntimeVersion__Output } from './containerd/types/RuntimeVersion.ts';
import type { Sandbox as _containerd_types_Sandbox, Sandbox__Output as _containerd_types_Sandbox__Output } from './containerd/types/Sandbox.ts';
import type { ProcessInfo as _containerd_v1_types_ProcessInfo, ProcessInfo__Output as _containerd_v1_types_ProcessInfo__Output } from './containerd/v1/types/ProcessInfo.ts';
import type { Any as _google_protobuf_Any, Any__Output as _google_protobuf_Any__Output } from './google/protobuf/Any.ts';
import type { Empty as _google_protobuf_Empty, Empty__Output as _google_protobuf_Empty__Output } from './google/protobuf/Empty.ts';
import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from './google/protobuf/Timestamp.ts';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  containerd: {
    task: {
      v3: {
        CheckpointTaskRequest: MessageTypeDefinition<_containerd_task_v3_CheckpointTaskRequest, _containerd_task_v3_CheckpointTaskRequest__Output>
        CloseIORequest: MessageTypeDefinition<_containerd_task_v3_CloseIORequest, _containerd_task_v3_CloseIORequest__Output>
        ConnectRequest: MessageTypeDefinition<_containerd_task_v3_ConnectRequest, _containerd_task_v3_ConnectRequest__Output>
        ConnectResponse: MessageTypeDefinition<_containerd_task_v3_ConnectResponse, _containerd_task_v3_ConnectResponse__Output>
        CreateTaskRequest: MessageTypeDefinition<_containerd_task_v3_CreateTaskRequest, _containerd_task_v3_CreateTaskRequest__Output>
        CreateTaskResponse: MessageTypeDefinition<_containerd_task_v3_CreateTaskResponse, _containerd_task_v3_CreateTaskResponse__Output>
        DeleteRequest: MessageTypeDefinition<_containerd_task_v3_DeleteRequest, _containerd_task_v3_DeleteRequest__Output>
        DeleteResponse: MessageTypeDefinition<_containerd_task_v3_DeleteResponse, _containerd_task_v3_DeleteResponse__Output>
        ExecProcessRequest: MessageTypeDefinition<_containerd_task_v3_ExecProcessRequest, _containerd_task_v3_ExecProcessRequest__Output>
        KillRequest: MessageTypeDefinition<_containerd_task_v3_KillRequest, _containerd_task_v3_KillRequest__Output>
        PauseRequest: MessageTypeDefinition<_containerd_task_v3_PauseRequest, _containerd_task_v3_PauseRequest__Output>
        PidsRequest: MessageTypeDefinition<_containerd_task_v3_PidsRequest, _containerd_task_v3_PidsRequest__Output>
        PidsResponse: MessageTypeDefinition<_containerd_task_v3_PidsResponse, _containerd_task_v3_PidsResponse__Output>
        ResizePtyRequest: MessageTypeDefinition<_containerd_task_v3_ResizePtyRequest, _containerd_task_v3_ResizePtyRequest__Output>
        ResumeRequest: MessageTypeDefinition<_containerd_task_v3_ResumeRequest, _containerd_task_v3_ResumeRequest__Output>
        ShutdownRequest: MessageTypeDefinition<_containerd_task_v3_ShutdownRequest, _containerd_task_v3_ShutdownRequest__Output>
        StartRequest: MessageTypeDefinition<_containerd_task_v3_StartRequest, _containerd_task_v3_StartRequest__Output>
        StartResponse: MessageTypeDefinition<_containerd_task_v3_StartResponse, _containerd_task_v3_StartResponse__Output>
        StateRequest: MessageTypeDefinition<_containerd_task_v3_StateRequest, _containerd_task_v3_StateRequest__Output>
        StateResponse: MessageTypeDefinition<_containerd_task_v3_StateResponse, _containerd_task_v3_StateResponse__Output>
        StatsRequest: MessageTypeDefinition<_containerd_task_v3_StatsRequest, _containerd_task_v3_StatsRequest__Output>
        StatsResponse: MessageTypeDefinition<_containerd_task_v3_StatsResponse, _containerd_task_v3_StatsResponse__Output>
        Task: SubtypeConstructor<typeof grpc.Client, _containerd_task_v3_TaskClient> & { service: _containerd_task_v3_TaskDefinition }
        UpdateTaskRequest: MessageTypeDefinition<_containerd_task_v3_UpdateTaskRequest, _containerd_task_v3_UpdateTaskRequest__Output>
        WaitRequest: MessageTypeDefinition<_containerd_task_v3_WaitRequest, _containerd_task_v3_WaitRequest__Output>
        WaitResponse: MessageTypeDefinition<_containerd_task_v3_WaitResponse, _containerd_task_v3_WaitResponse__Output>
      }
    }
    types: {
      Envelope: MessageTypeDefinition<_containerd_types_Envelope, _containerd_types_Envelope__Output>
      Metric: MessageTypeDefinition<_containerd_types_Metric, _containerd_types_Metric__Output>
      Mount: MessageTypeDefinition<_containerd_types_Mount, _containerd_types_Mount__Output>
      Platform: MessageTypeDefinition<_containerd_types_Platform, _containerd_types_Platform__Output>
      RuntimeInfo: MessageTypeDefinition<_containerd_types_RuntimeInfo, _containerd_types_RuntimeInfo__Output>
      RuntimeVersion: MessageTypeDefinition<_containerd_types_RuntimeVersion, _containerd_types_RuntimeVersion__Output>
      Sandbox: MessageTypeDefinition<_containerd_types_Sandbox, _containerd_types_Sandbox__Output>
    }
    v1: {
      types: {
        ProcessInfo: MessageTypeDefinition<_containerd_v1_types_ProcessInfo, _containerd_v1_types_ProcessInfo__Output>
        Status: EnumTypeDefinition
      }
    }
  }
  google: {
    protobuf: {
      Any: MessageTypeDefinition<_google_protobuf_Any, _google_protobuf_Any__Output>
      Empty: MessageTypeDefinition<_google_protobuf_Empty, _google_protobuf_Empty__Output>
      Timestamp: MessageTypeDefinition<_google_protobuf_Timestamp, _google_protobuf_Timestamp__Output>
    }
  }
}

