import type * as grpc from '@grpc/grpc-js';
import type { EnumTypeDefinition, MessageTypeDefinition } from '@grpc/proto-loader';

import type { Timestamp as _google_protobuf_Timestamp, Timestamp__Output as _google_protobuf_Timestamp__Output } from './google/protobuf/Timestamp.ts';
import type { AddKeyRequest as _qshim_v1_AddKeyRequest, AddKeyRequest__Output as _qshim_v1_AddKeyRequest__Output } from './qshim/v1/AddKeyRequest.ts';
import type { AttachManyRequest as _qshim_v1_AttachManyRequest, AttachManyRequest__Output as _qshim_v1_AttachManyRequest__Output } from './qshim/v1/AttachManyRequest.ts';
import type { AttachVolumeRequest as _qshim_v1_AttachVolumeRequest, AttachVolumeRequest__Output as _qshim_v1_AttachVolumeRequest__Output } from './qshim/v1/AttachVolumeRequest.ts';
import type { AttachedVolume as _qshim_v1_AttachedVolume, AttachedVolume__Output as _qshim_v1_AttachedVolume__Output } from './qshim/v1/AttachedVolume.ts';
import type { BatchResponse as _qshim_v1_BatchResponse, BatchResponse__Output as _qshim_v1_BatchResponse__Output } from './qshim/v1/BatchResponse.ts';
import type { BatchResult as _qshim_v1_BatchResult, BatchResult__Output as _qshim_v1_BatchResult__Output } from './qshim/v1/BatchResult.ts';
import type { BlockDevice as _qshim_v1_BlockDevice, BlockDevice__Output as _qshim_v1_BlockDevice__Output } from './qshim/v1/BlockDevice.ts';
import type { Cause as _qshim_v1_Cause, Cause__Output as _qshim_v1_Cause__Output } from './qshim/v1/Cause.ts';
import type { ChangeKeyRequest as _qshim_v1_ChangeKeyRequest, ChangeKeyRequest__Output as _qshim_v1_ChangeKeyRequest__Output } from './qshim/v1/ChangeKeyRequest.ts';
import type { DetachManyRequest as _qshim_v1_DetachManyRequest, DetachManyRequest__Output as _qshim_v1_DetachManyRequest__Output } from './qshim/v1/DetachManyRequest.ts';
import type { DetachVolumeRequest as _qshim_v1_DetachVolumeRequest, DetachVolumeRequest__Output as _qshim_v1_DetachVolumeRequest__Output } from './qshim/v1/DetachVolumeRequest.ts';
import type { Encryption as _qshim_v1_Encryption, Encryption__Output as _qshim_v1_Encryption__Output } from './qshim/v1/Encryption.ts';
import type { EncryptionStatus as _qshim_v1_EncryptionStatus, EncryptionStatus__Output as _qshim_v1_EncryptionStatus__Output } from './qshim/v1/EncryptionStatus.ts';
import type { EphemeralKey as _qshim_v1_EphemeralKey, EphemeralKey__Output as _qshim_v1_EphemeralKey__Output } from './qshim/v1/EphemeralKey.ts';
import type { Event as _qshim_v1_Event, Event__Output as _qshim_v1_Event__Output } from './qshim/v1/Event.ts';
import type { GetVolumeRequest as _qshim_v1_GetVolumeRequest, GetVolumeRequest__Output as _qshim_v1_GetVolumeRequest__Output } from './qshim/v1/GetVolumeRequest.ts';
import type { GuestLuks2 as _qshim_v1_GuestLuks2, GuestLuks2__Output as _qshim_v1_GuestLuks2__Output } from './qshim/v1/GuestLuks2.ts';
import type { HostLuks as _qshim_v1_HostLuks, HostLuks__Output as _qshim_v1_HostLuks__Output } from './qshim/v1/HostLuks.ts';
import type { IoLimits as _qshim_v1_IoLimits, IoLimits__Output as _qshim_v1_IoLimits__Output } from './qshim/v1/IoLimits.ts';
import type { Job as _qshim_v1_Job, Job__Output as _qshim_v1_Job__Output } from './qshim/v1/Job.ts';
import type { KeyReference as _qshim_v1_KeyReference, KeyReference__Output as _qshim_v1_KeyReference__Output } from './qshim/v1/KeyReference.ts';
import type { KeySlots as _qshim_v1_KeySlots, KeySlots__Output as _qshim_v1_KeySlots__Output } from './qshim/v1/KeySlots.ts';
import type { KeySlotsTarget as _qshim_v1_KeySlotsTarget, KeySlotsTarget__Output as _qshim_v1_KeySlotsTarget__Output } from './qshim/v1/KeySlotsTarget.ts';
import type { Lease as _qshim_v1_Lease, Lease__Output as _qshim_v1_Lease__Output } from './qshim/v1/Lease.ts';
import type { ListKeySlotsRequest as _qshim_v1_ListKeySlotsRequest, ListKeySlotsRequest__Output as _qshim_v1_ListKeySlotsRequest__Output } from './qshim/v1/ListKeySlotsRequest.ts';
import type { ListStaleCopiesRequest as _qshim_v1_ListStaleCopiesRequest, ListStaleCopiesRequest__Output as _qshim_v1_ListStaleCopiesRequest__Output } from './qshim/v1/ListStaleCopiesRequest.ts';
import type { ListStaleCopiesResponse as _qshim_v1_ListStaleCopiesResponse, ListStaleCopiesResponse__Output as _qshim_v1_ListStaleCopiesResponse__Output } from './qshim/v1/ListStaleCopiesResponse.ts';
import type { ListVolumesRequest as _qshim_v1_ListVolumesRequest, ListVolumesRequest__Output as _qshim_v1_ListVolumesRequest__Output } from './qshim/v1/ListVolumesRequest.ts';
import type { ListVolumesResponse as _qshim_v1_ListVolumesResponse, ListVolumesResponse__Output as _qshim_v1_ListVolumesResponse__Output } from './qshim/v1/ListVolumesResponse.ts';
import type { MigrateVolumeRequest as _qshim_v1_MigrateVolumeRequest, MigrateVolumeRequest__Output as _qshim_v1_MigrateVolumeRequest__Output } from './qshim/v1/MigrateVolumeRequest.ts';
import type { Mount as _qshim_v1_Mount, Mount__Output as _qshim_v1_Mount__Output } from './qshim/v1/Mount.ts';
import type { NbdExport as _qshim_v1_NbdExport, NbdExport__Output as _qshim_v1_NbdExport__Output } from './qshim/v1/NbdExport.ts';
import type { Operation as _qshim_v1_Operation, Operation__Output as _qshim_v1_Operation__Output } from './qshim/v1/Operation.ts';
import type { PivotVolumeRequest as _qshim_v1_PivotVolumeRequest, PivotVolumeRequest__Output as _qshim_v1_PivotVolumeRequest__Output } from './qshim/v1/PivotVolumeRequest.ts';
import type { PlanRequest as _qshim_v1_PlanRequest, PlanRequest__Output as _qshim_v1_PlanRequest__Output } from './qshim/v1/PlanRequest.ts';
import type { PlanResponse as _qshim_v1_PlanResponse, PlanResponse__Output as _qshim_v1_PlanResponse__Output } from './qshim/v1/PlanResponse.ts';
import type { PlannedStep as _qshim_v1_PlannedStep, PlannedStep__Output as _qshim_v1_PlannedStep__Output } from './qshim/v1/PlannedStep.ts';
import type { Problem as _qshim_v1_Problem, Problem__Output as _qshim_v1_Problem__Output } from './qshim/v1/Problem.ts';
import type { Qcow2File as _qshim_v1_Qcow2File, Qcow2File__Output as _qshim_v1_Qcow2File__Output } from './qshim/v1/Qcow2File.ts';
import type { RawFile as _qshim_v1_RawFile, RawFile__Output as _qshim_v1_RawFile__Output } from './qshim/v1/RawFile.ts';
import type { ReleaseStaleCopyRequest as _qshim_v1_ReleaseStaleCopyRequest, ReleaseStaleCopyRequest__Output as _qshim_v1_ReleaseStaleCopyRequest__Output } from './qshim/v1/ReleaseStaleCopyRequest.ts';
import type { RemoveKeyRequest as _qshim_v1_RemoveKeyRequest, RemoveKeyRequest__Output as _qshim_v1_RemoveKeyRequest__Output } from './qshim/v1/RemoveKeyRequest.ts';
import type { RenewLeaseRequest as _qshim_v1_RenewLeaseRequest, RenewLeaseRequest__Output as _qshim_v1_RenewLeaseRequest__Output } from './qshim/v1/RenewLeaseRequest.ts';
import type { ResizeVolumeRequest as _qshim_v1_ResizeVolumeRequest, ResizeVolumeRequest__Output as _qshim_v1_ResizeVolumeRequest__Output } from './qshim/v1/ResizeVolumeRequest.ts';
import type { SetLimitsRequest as _qshim_v1_SetLimitsRequest, SetLimitsRequest__Output as _qshim_v1_SetLimitsRequest__Output } from './qshim/v1/SetLimitsRequest.ts';
import type { StaleCopy as _qshim_v1_StaleCopy, StaleCopy__Output as _qshim_v1_StaleCopy__Output } from './qshim/v1/StaleCopy.ts';
import type { Timing as _qshim_v1_Timing, Timing__Output as _qshim_v1_Timing__Output } from './qshim/v1/Timing.ts';
import type { Volume as _qshim_v1_Volume, Volume__Output as _qshim_v1_Volume__Output } from './qshim/v1/Volume.ts';
import type { VolumeEvent as _qshim_v1_VolumeEvent, VolumeEvent__Output as _qshim_v1_VolumeEvent__Output } from './qshim/v1/VolumeEvent.ts';
import type { VolumeHealth as _qshim_v1_VolumeHealth, VolumeHealth__Output as _qshim_v1_VolumeHealth__Output } from './qshim/v1/VolumeHealth.ts';
import type { VolumePlan as _qshim_v1_VolumePlan, VolumePlan__Output as _qshim_v1_VolumePlan__Output } from './qshim/v1/VolumePlan.ts';
import type { VolumeSpec as _qshim_v1_VolumeSpec, VolumeSpec__Output as _qshim_v1_VolumeSpec__Output } from './qshim/v1/VolumeSpec.ts';
import type { VolumeToAttach as _qshim_v1_VolumeToAttach, VolumeToAttach__Output as _qshim_v1_VolumeToAttach__Output } from './qshim/v1/VolumeToAttach.ts';
import type { VolumesClient as _qshim_v1_VolumesClient, VolumesDefinition as _qshim_v1_VolumesDefinition } from './qshim/v1/Volumes.ts';
import type { WatchVolumesRequest as _qshim_v1_WatchVolumesRequest, WatchVolumesRequest__Output as _qshim_v1_WatchVolumesRequest__Output } from './qshim/v1/WatchVolumesRequest.ts';

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
      AddKeyRequest: MessageTypeDefinition<_qshim_v1_AddKeyRequest, _qshim_v1_AddKeyRequest__Output>
      AioMode: EnumTypeDefinition
      AttachManyRequest: MessageTypeDefinition<_qshim_v1_AttachManyRequest, _qshim_v1_AttachManyRequest__Output>
      AttachVolumeRequest: MessageTypeDefinition<_qshim_v1_AttachVolumeRequest, _qshim_v1_AttachVolumeRequest__Output>
      AttachedVolume: MessageTypeDefinition<_qshim_v1_AttachedVolume, _qshim_v1_AttachedVolume__Output>
      BatchResponse: MessageTypeDefinition<_qshim_v1_BatchResponse, _qshim_v1_BatchResponse__Output>
      BatchResult: MessageTypeDefinition<_qshim_v1_BatchResult, _qshim_v1_BatchResult__Output>
      BlockDevice: MessageTypeDefinition<_qshim_v1_BlockDevice, _qshim_v1_BlockDevice__Output>
      CacheMode: EnumTypeDefinition
      Cause: MessageTypeDefinition<_qshim_v1_Cause, _qshim_v1_Cause__Output>
      ChangeKeyRequest: MessageTypeDefinition<_qshim_v1_ChangeKeyRequest, _qshim_v1_ChangeKeyRequest__Output>
      DetachManyRequest: MessageTypeDefinition<_qshim_v1_DetachManyRequest, _qshim_v1_DetachManyRequest__Output>
      DetachVolumeRequest: MessageTypeDefinition<_qshim_v1_DetachVolumeRequest, _qshim_v1_DetachVolumeRequest__Output>
      DetectZeroes: EnumTypeDefinition
      DiscardMode: EnumTypeDefinition
      Encryption: MessageTypeDefinition<_qshim_v1_Encryption, _qshim_v1_Encryption__Output>
      EncryptionStatus: MessageTypeDefinition<_qshim_v1_EncryptionStatus, _qshim_v1_EncryptionStatus__Output>
      EphemeralKey: MessageTypeDefinition<_qshim_v1_EphemeralKey, _qshim_v1_EphemeralKey__Output>
      Event: MessageTypeDefinition<_qshim_v1_Event, _qshim_v1_Event__Output>
      Format: EnumTypeDefinition
      Fsck: EnumTypeDefinition
      GetVolumeRequest: MessageTypeDefinition<_qshim_v1_GetVolumeRequest, _qshim_v1_GetVolumeRequest__Output>
      GuestLuks2: MessageTypeDefinition<_qshim_v1_GuestLuks2, _qshim_v1_GuestLuks2__Output>
      HostLuks: MessageTypeDefinition<_qshim_v1_HostLuks, _qshim_v1_HostLuks__Output>
      InterruptMode: EnumTypeDefinition
      IoErrorPolicy: EnumTypeDefinition
      IoLimits: MessageTypeDefinition<_qshim_v1_IoLimits, _qshim_v1_IoLimits__Output>
      Job: MessageTypeDefinition<_qshim_v1_Job, _qshim_v1_Job__Output>
      KeyReference: MessageTypeDefinition<_qshim_v1_KeyReference, _qshim_v1_KeyReference__Output>
      KeySlots: MessageTypeDefinition<_qshim_v1_KeySlots, _qshim_v1_KeySlots__Output>
      KeySlotsTarget: MessageTypeDefinition<_qshim_v1_KeySlotsTarget, _qshim_v1_KeySlotsTarget__Output>
      Lease: MessageTypeDefinition<_qshim_v1_Lease, _qshim_v1_Lease__Output>
      ListKeySlotsRequest: MessageTypeDefinition<_qshim_v1_ListKeySlotsRequest, _qshim_v1_ListKeySlotsRequest__Output>
      ListStaleCopiesRequest: MessageTypeDefinition<_qshim_v1_ListStaleCopiesRequest, _qshim_v1_ListStaleCopiesRequest__Output>
      ListStaleCopiesResponse: MessageTypeDefinition<_qshim_v1_ListStaleCopiesResponse, _qshim_v1_ListStaleCopiesResponse__Output>
      ListVolumesRequest: MessageTypeDefinition<_qshim_v1_ListVolumesRequest, _qshim_v1_ListVolumesRequest__Output>
      ListVolumesResponse: MessageTypeDefinition<_qshim_v1_ListVolumesResponse, _qshim_v1_ListVolumesResponse__Output>
      LuksMode: EnumTypeDefinition
      MigrateVolumeRequest: MessageTypeDefinition<_qshim_v1_MigrateVolumeRequest, _qshim_v1_MigrateVolumeRequest__Output>
      Mount: MessageTypeDefinition<_qshim_v1_Mount, _qshim_v1_Mount__Output>
      NbdExport: MessageTypeDefinition<_qshim_v1_NbdExport, _qshim_v1_NbdExport__Output>
      Operation: MessageTypeDefinition<_qshim_v1_Operation, _qshim_v1_Operation__Output>
      OperationState: EnumTypeDefinition
      PivotVolumeRequest: MessageTypeDefinition<_qshim_v1_PivotVolumeRequest, _qshim_v1_PivotVolumeRequest__Output>
      PivotWhen: EnumTypeDefinition
      PlanRequest: MessageTypeDefinition<_qshim_v1_PlanRequest, _qshim_v1_PlanRequest__Output>
      PlanResponse: MessageTypeDefinition<_qshim_v1_PlanResponse, _qshim_v1_PlanResponse__Output>
      PlannedStep: MessageTypeDefinition<_qshim_v1_PlannedStep, _qshim_v1_PlannedStep__Output>
      Problem: MessageTypeDefinition<_qshim_v1_Problem, _qshim_v1_Problem__Output>
      Qcow2File: MessageTypeDefinition<_qshim_v1_Qcow2File, _qshim_v1_Qcow2File__Output>
      RawFile: MessageTypeDefinition<_qshim_v1_RawFile, _qshim_v1_RawFile__Output>
      ReleaseStaleCopyRequest: MessageTypeDefinition<_qshim_v1_ReleaseStaleCopyRequest, _qshim_v1_ReleaseStaleCopyRequest__Output>
      RemoveKeyRequest: MessageTypeDefinition<_qshim_v1_RemoveKeyRequest, _qshim_v1_RemoveKeyRequest__Output>
      RenewLeaseRequest: MessageTypeDefinition<_qshim_v1_RenewLeaseRequest, _qshim_v1_RenewLeaseRequest__Output>
      ResizeVolumeRequest: MessageTypeDefinition<_qshim_v1_ResizeVolumeRequest, _qshim_v1_ResizeVolumeRequest__Output>
      SetLimitsRequest: MessageTypeDefinition<_qshim_v1_SetLimitsRequest, _qshim_v1_SetLimitsRequest__Output>
      StaleCopy: MessageTypeDefinition<_qshim_v1_StaleCopy, _qshim_v1_StaleCopy__Output>
      Timing: MessageTypeDefinition<_qshim_v1_Timing, _qshim_v1_Timing__Output>
      Volume: MessageTypeDefinition<_qshim_v1_Volume, _qshim_v1_Volume__Output>
      VolumeEvent: MessageTypeDefinition<_qshim_v1_VolumeEvent, _qshim_v1_VolumeEvent__Output>
      VolumeHealth: MessageTypeDefinition<_qshim_v1_VolumeHealth, _qshim_v1_VolumeHealth__Output>
      VolumePlan: MessageTypeDefinition<_qshim_v1_VolumePlan, _qshim_v1_VolumePlan__Output>
      VolumeSpec: MessageTypeDefinition<_qshim_v1_VolumeSpec, _qshim_v1_VolumeSpec__Output>
      VolumeState: EnumTypeDefinition
      VolumeToAttach: MessageTypeDefinition<_qshim_v1_VolumeToAttach, _qshim_v1_VolumeToAttach__Output>
      Volumes: SubtypeConstructor<typeof grpc.Client, _qshim_v1_VolumesClient> & { service: _qshim_v1_VolumesDefinition }
      WatchVolumesRequest: MessageTypeDefinition<_qshim_v1_WatchVolumesRequest, _qshim_v1_WatchVolumesRequest__Output>
    }
  }
}

