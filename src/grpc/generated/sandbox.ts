import type * as grpc from '@grpc/grpc-js';
import type { MessageTypeDefinition } from '@grpc/proto-loader';

import type { ControllerClient as _containerd_services_sandbox_v1_ControllerClient, ControllerDefinition as _containerd_services_sandbox_v1_ControllerDefinition } from './containerd/services/sandbox/v1/Controller.ts';
import type { ControllerCreateRequest as _containerd_services_sandbox_v1_ControllerCreateRequest, ControllerCreateRequest__Output as _containerd_services_sandbox_v1_ControllerCreateRequest__Output } from './containerd/services/sandbox/v1/ControllerCreateRequest.ts';
import type { ControllerCreateResponse as _containerd_services_sandbox_v1_ControllerCreateResponse, ControllerCreateResponse__Output as _containerd_services_sandbox_v1_ControllerCreateResponse__Output } from './containerd/services/sandbox/v1/ControllerCreateResponse.ts';
import type { ControllerMetricsRequest as _containerd_services_sandbox_v1_ControllerMetricsRequest, ControllerMetricsRequest__Output as _containerd_services_sandbox_v1_ControllerMetricsRequest__Output } from './containerd/services/sandbox/v1/ControllerMetricsRequest.ts';
import type { ControllerMetricsResponse as _containerd_services_sandbox_v1_ControllerMetricsResponse, ControllerMetricsResponse__Output as _containerd_services_sandbox_v1_ControllerMetricsResponse__Output } from './containerd/services/sandbox/v1/ControllerMetricsResponse.ts';
import type { ControllerPlatformRequest as _containerd_services_sandbox_v1_ControllerPlatformRequest, ControllerPlatformRequest__Output as _containerd_services_sandbox_v1_ControllerPlatformRequest__Output } from './containerd/services/sandbox/v1/ControllerPlatformRequest.ts';
import type { ControllerPlatformResponse as _containerd_services_sandbox_v1_ControllerPlatformResponse, ControllerPlatformResponse__Output as _containerd_services_sandbox_v1_ControllerPlatformResponse__Output } from './containerd/services/sandbox/v1/ControllerPlatformResponse.ts';
import type { ControllerShutdownRequest as _containerd_services_sandbox_v1_ControllerShutdownRequest, ControllerShutdownRequest__Output as _containerd_services_sandbox_v1_ControllerShutdownRequest__Output } from './containerd/services/sandbox/v1/ControllerShutdownRequest.ts';
import type { ControllerShutdownResponse as _containerd_services_sandbox_v1_ControllerShutdownResponse, ControllerShutdownResponse__Output as _containerd_services_sandbox_v1_ControllerShutdownResponse__Output } from './containerd/services/sandbox/v1/ControllerShutdownResponse.ts';
import type { ControllerStartRequest as _containerd_services_sandbox_v1_ControllerStartRequest, ControllerStartRequest__Output as _containerd_services_sandbox_v1_ControllerStartRequest__Output } from './containerd/services/sandbox/v1/ControllerStartRequest.ts';
import type { ControllerStartResponse as _containerd_services_sandbox_v1_ControllerStartResponse, ControllerStartResponse__Output as _containerd_services_sandbox_v1_ControllerStartResponse__Output } from './containerd/services/sandbox/v1/ControllerStartResponse.ts';
import type { ControllerStatusRequest as _containerd_services_sandbox_v1_ControllerStatusRequest, ControllerStatusRequest__Output as _containerd_services_sandbox_v1_ControllerStatusRequest__Output } from './containerd/services/sandbox/v1/ControllerStatusRequest.ts';
import type { ControllerStatusResponse as _containerd_services_sandbox_v1_ControllerStatusResponse, ControllerStatusResponse__Output as _containerd_services_sandbox_v1_ControllerStatusResponse__Output } from './containerd/services/sandbox/v1/ControllerStatusResponse.ts';
import type { ControllerStopRequest as _containerd_services_sandbox_v1_ControllerStopRequest, ControllerStopRequest__Output as _containerd_services_sandbox_v1_ControllerStopRequest__Output } from './containerd/services/sandbox/v1/ControllerStopRequest.ts';
import type { ControllerStopResponse as _containerd_services_sandbox_v1_ControllerStopResponse, ControllerStopResponse__Output as _containerd_services_sandbox_v1_ControllerStopResponse__Output } from './containerd/services/sandbox/v1/ControllerStopResponse.ts';
import type { ControllerUpdateRequest as _containerd_services_sandbox_v1_ControllerUpdateRequest, ControllerUpdateRequest__Output as _containerd_services_sandbox_v1_ControllerUpdateRequest__Output } from './containerd/services/sandbox/v1/ControllerUpdateRequest.ts';
import type { ControllerUpdateResponse as _containerd_services_sandbox_v1_ControllerUpdateResponse, ControllerUpdateResponse__Output as _containerd_services_sandbox_v1_ControllerUpdateResponse__Output } from './containerd/services/sandbox/v1/ControllerUpdateResponse.ts';
import type { ControllerWaitRequest as _containerd_services_sandbox_v1_ControllerWaitRequest, ControllerWaitRequest__Output as _containerd_services_sandbox_v1_ControllerWaitRequest__Output } from './containerd/services/sandbox/v1/ControllerWaitRequest.ts';
import type { ControllerWaitResponse as _containerd_services_sandbox_v1_ControllerWaitResponse, ControllerWaitResponse__Output as _containerd_services_sandbox_v1_ControllerWaitResponse__Output } from './containerd/services/sandbox/v1/ControllerWaitResponse.ts';
import type { Envelope as _containerd_types_Envelope, Envelope__Output as _containerd_types_Envelope__Output } from './containerd/types/Envelope.ts';
import type { Metric as _containerd_types_Metric, Metric__Output as _containerd_types_Metric__Output } from './containerd/types/Metric.ts';
import type { Mount as _containerd_types_Mount, Mount__Output as _containerd_types_Mount__Output } from './containerd/types/Mount.ts';
import type { Platform as _containerd_types_Platform, Platform__Output as _containerd_types_Platform__Output } from './containerd/types/Platform.ts';
import type { RuntimeInfo as _containerd_types_RuntimeInfo, RuntimeInfo__Output as _containerd_types_RuntimeInfo__Output } from './containerd/types/RuntimeInfo.ts';
import type { RuntimeVersion as _containerd_types_RuntimeVersion, RuntimeVersion__Output as _containerd_types_RuntimeVersion__Output } from './containerd/types/RuntimeVersion.ts';
import type { Sandbox as _containerd_types_Sandbox, Sandbox__Output as _containerd_types_Sandbox__Output } from './containerd/types/Sandbox.ts';
import type { Any as _google_protobuf_Any, Any__Output as _google_protobuf_Any__Output } from './google/protobuf/Any.ts';
import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from './google/protobuf/Timestamp.ts';

type SubtypeConstructor<Constructor extends new (...args: any) => any, Subtype> = {
  new(...args: ConstructorParameters<Constructor>): Subtype;
};

export interface ProtoGrpcType {
  containerd: {
    services: {
      sandbox: {
        v1: {
          Controller: SubtypeConstructor<typeof grpc.Client, _containerd_services_sandbox_v1_ControllerClient> & { service: _containerd_services_sandbox_v1_ControllerDefinition }
          ControllerCreateRequest: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerCreateRequest, _containerd_services_sandbox_v1_ControllerCreateRequest__Output>
          ControllerCreateResponse: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerCreateResponse, _containerd_services_sandbox_v1_ControllerCreateResponse__Output>
          ControllerMetricsRequest: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerMetricsRequest, _containerd_services_sandbox_v1_ControllerMetricsRequest__Output>
          ControllerMetricsResponse: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerMetricsResponse, _containerd_services_sandbox_v1_ControllerMetricsResponse__Output>
          ControllerPlatformRequest: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerPlatformRequest, _containerd_services_sandbox_v1_ControllerPlatformRequest__Output>
          ControllerPlatformResponse: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerPlatformResponse, _containerd_services_sandbox_v1_ControllerPlatformResponse__Output>
          ControllerShutdownRequest: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerShutdownRequest, _containerd_services_sandbox_v1_ControllerShutdownRequest__Output>
          ControllerShutdownResponse: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerShutdownResponse, _containerd_services_sandbox_v1_ControllerShutdownResponse__Output>
          ControllerStartRequest: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerStartRequest, _containerd_services_sandbox_v1_ControllerStartRequest__Output>
          ControllerStartResponse: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerStartResponse, _containerd_services_sandbox_v1_ControllerStartResponse__Output>
          ControllerStatusRequest: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerStatusRequest, _containerd_services_sandbox_v1_ControllerStatusRequest__Output>
          ControllerStatusResponse: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerStatusResponse, _containerd_services_sandbox_v1_ControllerStatusResponse__Output>
          ControllerStopRequest: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerStopRequest, _containerd_services_sandbox_v1_ControllerStopRequest__Output>
          ControllerStopResponse: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerStopResponse, _containerd_services_sandbox_v1_ControllerStopResponse__Output>
          ControllerUpdateRequest: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerUpdateRequest, _containerd_services_sandbox_v1_ControllerUpdateRequest__Output>
          ControllerUpdateResponse: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerUpdateResponse, _containerd_services_sandbox_v1_ControllerUpdateResponse__Output>
          ControllerWaitRequest: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerWaitRequest, _containerd_services_sandbox_v1_ControllerWaitRequest__Output>
          ControllerWaitResponse: MessageTypeDefinition<_containerd_services_sandbox_v1_ControllerWaitResponse, _containerd_services_sandbox_v1_ControllerWaitResponse__Output>
        }
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
  }
  google: {
    protobuf: {
      Any: MessageTypeDefinition<_google_protobuf_Any, _google_protobuf_Any__Output>
      Timestamp: MessageTypeDefinition<_google_protobuf_Timestamp, _google_protobuf_Timestamp__Output>
    }
  }
}

