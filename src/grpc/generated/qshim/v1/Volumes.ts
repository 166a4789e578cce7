// Original file: proto/qshim/v1/volumes.proto

import type * as grpc from '@grpc/grpc-js'
import type { MethodDefinition } from '@grpc/proto-loader'
import type { AddKeyRequest as _qshim_v1_AddKeyRequest, AddKeyRequest__Output as _qshim_v1_AddKeyRequest__Output } from '../../qshim/v1/AddKeyRequest.ts';
import type { AttachManyRequest as _qshim_v1_AttachManyRequest, AttachManyRequest__Output as _qshim_v1_AttachManyRequest__Output } from '../../qshim/v1/AttachManyRequest.ts';
import type { AttachVolumeRequest as _qshim_v1_AttachVolumeRequest, AttachVolumeRequest__Output as _qshim_v1_AttachVolumeRequest__Output } from '../../qshim/v1/AttachVolumeRequest.ts';
import type { BatchResponse as _qshim_v1_BatchResponse, BatchResponse__Output as _qshim_v1_BatchResponse__Output } from '../../qshim/v1/BatchResponse.ts';
import type { ChangeKeyRequest as _qshim_v1_ChangeKeyRequest, ChangeKeyRequest__Output as _qshim_v1_ChangeKeyRequest__Output } from '../../qshim/v1/ChangeKeyRequest.ts';
import type { DetachManyRequest as _qshim_v1_DetachManyRequest, DetachManyRequest__Output as _qshim_v1_DetachManyRequest__Output } from '../../qshim/v1/DetachManyRequest.ts';
import type { DetachVolumeRequest as _qshim_v1_DetachVolumeRequest, DetachVolumeRequest__Output as _qshim_v1_DetachVolumeRequest__Output } from '../../qshim/v1/DetachVolumeRequest.ts';
import type { GetVolumeRequest as _qshim_v1_GetVolumeRequest, GetVolumeRequest__Output as _qshim_v1_GetVolumeRequest__Output } from '../../qshim/v1/GetVolumeRequest.ts';
import type { KeySlots as _qshim_v1_KeySlots, KeySlots__Output as _qshim_v1_KeySlots__Output } from '../../qshim/v1/KeySlots.ts';
import type { ListKeySlotsRequest as _qshim_v1_ListKeySlotsRequest, ListKeySlotsRequest__Output as _qshim_v1_ListKeySlotsRequest__Output } from '../../qshim/v1/ListKeySlotsRequest.ts';
import type { ListStaleCopiesRequest as _qshim_v1_ListStaleCopiesRequest, ListStaleCopiesRequest__Output as _qshim_v1_ListStaleCopiesRequest__Output } from '../../qshim/v1/ListStaleCopiesRequest.ts';
import type { ListStaleCopiesResponse as _qshim_v1_ListStaleCopiesResponse, ListStaleCopiesResponse__Output as _qshim_v1_ListStaleCopiesResponse__Output } from '../../qshim/v1/ListStaleCopiesResponse.ts';
import type { ListVolumesRequest as _qshim_v1_ListVolumesRequest, ListVolumesRequest__Output as _qshim_v1_ListVolumesRequest__Output } from '../../qshim/v1/ListVolumesRequest.ts';
import type { ListVolumesResponse as _qshim_v1_ListVolumesResponse, ListVolumesResponse__Output as _qshim_v1_ListVolumesResponse__Output } from '../../qshim/v1/ListVolumesResponse.ts';
import type { MigrateVolumeRequest as _qshim_v1_MigrateVolumeRequest, MigrateVolumeRequest__Output as _qshim_v1_MigrateVolumeRequest__Output } from '../../qshim/v1/MigrateVolumeRequest.ts';
import type { Operation as _qshim_v1_Operation, Operation__Output as _qshim_v1_Operation__Output } from '../../qshim/v1/Operation.ts';
import type { PivotVolumeRequest as _qshim_v1_PivotVolumeRequest, PivotVolumeRequest__Output as _qshim_v1_PivotVolumeRequest__Output } from '../../qshim/v1/PivotVolumeRequest.ts';
import type { PlanRequest as _qshim_v1_PlanRequest, PlanRequest__Output as _qshim_v1_PlanRequest__Output } from '../../qshim/v1/PlanRequest.ts';
import type { PlanResponse as _qshim_v1_PlanResponse, PlanResponse__Output as _qshim_v1_PlanResponse__Output } from '../../qshim/v1/PlanResponse.ts';
import type { ReleaseStaleCopyRequest as _qshim_v1_ReleaseStaleCopyRequest, ReleaseStaleCopyRequest__Output as _qshim_v1_ReleaseStaleCopyRequest__Output } from '../../qshim/v1/ReleaseStaleCopyRequest.ts';
import type { RemoveKeyRequest as _qshim_v1_RemoveKeyRequest, RemoveKeyRequest__Output as _qshim_v1_RemoveKeyRequest__Output } from '../../qshim/v1/RemoveKeyRequest.ts';
import type { RenewLeaseRequest as _qshim_v1_RenewLeaseRequest, RenewLeaseRequest__Output as _qshim_v1_RenewLeaseRequest__Output } from '../../qshim/v1/RenewLeaseRequest.ts';
import type { ResizeVolumeRequest as _qshim_v1_ResizeVolumeRequest, ResizeVolumeRequest__Output as _qshim_v1_ResizeVolumeRequest__Output } from '../../qshim/v1/ResizeVolumeRequest.ts';
import type { SetLimitsRequest as _qshim_v1_SetLimitsRequest, SetLimitsRequest__Output as _qshim_v1_SetLimitsRequest__Output } from '../../qshim/v1/SetLimitsRequest.ts';
import type { StaleCopy as _qshim_v1_StaleCopy, StaleCopy__Output as _qshim_v1_StaleCopy__Output } from '../../qshim/v1/StaleCopy.ts';
import type { Volume as _qshim_v1_Volume, Volume__Output as _qshim_v1_Volume__Output } from '../../qshim/v1/Volume.ts';
import type { VolumeEvent as _qshim_v1_VolumeEvent, VolumeEvent__Output as _qshim_v1_VolumeEvent__Output } from '../../qshim/v1/VolumeEvent.ts';
import type { WatchVolumesRequest as _qshim_v1_WatchVolumesRequest, WatchVolumesRequest__Output as _qshim_v1_WatchVolumesRequest__Output } from '../../qshim/v1/WatchVolumesRequest.ts';

export interface VolumesClient extends grpc.Client {
  AddKey(argument: _qshim_v1_AddKeyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  AddKey(argument: _qshim_v1_AddKeyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  AddKey(argument: _qshim_v1_AddKeyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  AddKey(argument: _qshim_v1_AddKeyRequest, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  addKey(argument: _qshim_v1_AddKeyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  addKey(argument: _qshim_v1_AddKeyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  addKey(argument: _qshim_v1_AddKeyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  addKey(argument: _qshim_v1_AddKeyRequest, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  
  Attach(argument: _qshim_v1_AttachVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Attach(argument: _qshim_v1_AttachVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Attach(argument: _qshim_v1_AttachVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Attach(argument: _qshim_v1_AttachVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  attach(argument: _qshim_v1_AttachVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  attach(argument: _qshim_v1_AttachVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  attach(argument: _qshim_v1_AttachVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  attach(argument: _qshim_v1_AttachVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  
  AttachMany(argument: _qshim_v1_AttachManyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  AttachMany(argument: _qshim_v1_AttachManyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  AttachMany(argument: _qshim_v1_AttachManyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  AttachMany(argument: _qshim_v1_AttachManyRequest, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  attachMany(argument: _qshim_v1_AttachManyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  attachMany(argument: _qshim_v1_AttachManyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  attachMany(argument: _qshim_v1_AttachManyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  attachMany(argument: _qshim_v1_AttachManyRequest, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  
  ChangeKey(argument: _qshim_v1_ChangeKeyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  ChangeKey(argument: _qshim_v1_ChangeKeyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  ChangeKey(argument: _qshim_v1_ChangeKeyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  ChangeKey(argument: _qshim_v1_ChangeKeyRequest, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  changeKey(argument: _qshim_v1_ChangeKeyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  changeKey(argument: _qshim_v1_ChangeKeyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  changeKey(argument: _qshim_v1_ChangeKeyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  changeKey(argument: _qshim_v1_ChangeKeyRequest, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  
  Detach(argument: _qshim_v1_DetachVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Detach(argument: _qshim_v1_DetachVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Detach(argument: _qshim_v1_DetachVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Detach(argument: _qshim_v1_DetachVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  detach(argument: _qshim_v1_DetachVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  detach(argument: _qshim_v1_DetachVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  detach(argument: _qshim_v1_DetachVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  detach(argument: _qshim_v1_DetachVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  
  DetachMany(argument: _qshim_v1_DetachManyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  DetachMany(argument: _qshim_v1_DetachManyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  DetachMany(argument: _qshim_v1_DetachManyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  DetachMany(argument: _qshim_v1_DetachManyRequest, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  detachMany(argument: _qshim_v1_DetachManyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  detachMany(argument: _qshim_v1_DetachManyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  detachMany(argument: _qshim_v1_DetachManyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  detachMany(argument: _qshim_v1_DetachManyRequest, callback: grpc.requestCallback<_qshim_v1_BatchResponse__Output>): grpc.ClientUnaryCall;
  
  Get(argument: _qshim_v1_GetVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Get(argument: _qshim_v1_GetVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  get(argument: _qshim_v1_GetVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  
  List(argument: _qshim_v1_ListVolumesRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListVolumesResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListVolumesRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListVolumesResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListVolumesRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListVolumesResponse__Output>): grpc.ClientUnaryCall;
  List(argument: _qshim_v1_ListVolumesRequest, callback: grpc.requestCallback<_qshim_v1_ListVolumesResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListVolumesRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListVolumesResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListVolumesRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListVolumesResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListVolumesRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListVolumesResponse__Output>): grpc.ClientUnaryCall;
  list(argument: _qshim_v1_ListVolumesRequest, callback: grpc.requestCallback<_qshim_v1_ListVolumesResponse__Output>): grpc.ClientUnaryCall;
  
  ListKeySlots(argument: _qshim_v1_ListKeySlotsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  ListKeySlots(argument: _qshim_v1_ListKeySlotsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  ListKeySlots(argument: _qshim_v1_ListKeySlotsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  ListKeySlots(argument: _qshim_v1_ListKeySlotsRequest, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  listKeySlots(argument: _qshim_v1_ListKeySlotsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  listKeySlots(argument: _qshim_v1_ListKeySlotsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  listKeySlots(argument: _qshim_v1_ListKeySlotsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  listKeySlots(argument: _qshim_v1_ListKeySlotsRequest, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  
  ListStaleCopies(argument: _qshim_v1_ListStaleCopiesRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListStaleCopiesResponse__Output>): grpc.ClientUnaryCall;
  ListStaleCopies(argument: _qshim_v1_ListStaleCopiesRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListStaleCopiesResponse__Output>): grpc.ClientUnaryCall;
  ListStaleCopies(argument: _qshim_v1_ListStaleCopiesRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListStaleCopiesResponse__Output>): grpc.ClientUnaryCall;
  ListStaleCopies(argument: _qshim_v1_ListStaleCopiesRequest, callback: grpc.requestCallback<_qshim_v1_ListStaleCopiesResponse__Output>): grpc.ClientUnaryCall;
  listStaleCopies(argument: _qshim_v1_ListStaleCopiesRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListStaleCopiesResponse__Output>): grpc.ClientUnaryCall;
  listStaleCopies(argument: _qshim_v1_ListStaleCopiesRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_ListStaleCopiesResponse__Output>): grpc.ClientUnaryCall;
  listStaleCopies(argument: _qshim_v1_ListStaleCopiesRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_ListStaleCopiesResponse__Output>): grpc.ClientUnaryCall;
  listStaleCopies(argument: _qshim_v1_ListStaleCopiesRequest, callback: grpc.requestCallback<_qshim_v1_ListStaleCopiesResponse__Output>): grpc.ClientUnaryCall;
  
  Migrate(argument: _qshim_v1_MigrateVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Migrate(argument: _qshim_v1_MigrateVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Migrate(argument: _qshim_v1_MigrateVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Migrate(argument: _qshim_v1_MigrateVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  migrate(argument: _qshim_v1_MigrateVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  migrate(argument: _qshim_v1_MigrateVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  migrate(argument: _qshim_v1_MigrateVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  migrate(argument: _qshim_v1_MigrateVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  
  Pivot(argument: _qshim_v1_PivotVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Pivot(argument: _qshim_v1_PivotVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Pivot(argument: _qshim_v1_PivotVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  Pivot(argument: _qshim_v1_PivotVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  pivot(argument: _qshim_v1_PivotVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  pivot(argument: _qshim_v1_PivotVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  pivot(argument: _qshim_v1_PivotVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  pivot(argument: _qshim_v1_PivotVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Operation__Output>): grpc.ClientUnaryCall;
  
  Plan(argument: _qshim_v1_PlanRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_PlanResponse__Output>): grpc.ClientUnaryCall;
  Plan(argument: _qshim_v1_PlanRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_PlanResponse__Output>): grpc.ClientUnaryCall;
  Plan(argument: _qshim_v1_PlanRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_PlanResponse__Output>): grpc.ClientUnaryCall;
  Plan(argument: _qshim_v1_PlanRequest, callback: grpc.requestCallback<_qshim_v1_PlanResponse__Output>): grpc.ClientUnaryCall;
  plan(argument: _qshim_v1_PlanRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_PlanResponse__Output>): grpc.ClientUnaryCall;
  plan(argument: _qshim_v1_PlanRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_PlanResponse__Output>): grpc.ClientUnaryCall;
  plan(argument: _qshim_v1_PlanRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_PlanResponse__Output>): grpc.ClientUnaryCall;
  plan(argument: _qshim_v1_PlanRequest, callback: grpc.requestCallback<_qshim_v1_PlanResponse__Output>): grpc.ClientUnaryCall;
  
  ReleaseStaleCopy(argument: _qshim_v1_ReleaseStaleCopyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_StaleCopy__Output>): grpc.ClientUnaryCall;
  ReleaseStaleCopy(argument: _qshim_v1_ReleaseStaleCopyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_StaleCopy__Output>): grpc.ClientUnaryCall;
  ReleaseStaleCopy(argument: _qshim_v1_ReleaseStaleCopyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_StaleCopy__Output>): grpc.ClientUnaryCall;
  ReleaseStaleCopy(argument: _qshim_v1_ReleaseStaleCopyRequest, callback: grpc.requestCallback<_qshim_v1_StaleCopy__Output>): grpc.ClientUnaryCall;
  releaseStaleCopy(argument: _qshim_v1_ReleaseStaleCopyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_StaleCopy__Output>): grpc.ClientUnaryCall;
  releaseStaleCopy(argument: _qshim_v1_ReleaseStaleCopyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_StaleCopy__Output>): grpc.ClientUnaryCall;
  releaseStaleCopy(argument: _qshim_v1_ReleaseStaleCopyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_StaleCopy__Output>): grpc.ClientUnaryCall;
  releaseStaleCopy(argument: _qshim_v1_ReleaseStaleCopyRequest, callback: grpc.requestCallback<_qshim_v1_StaleCopy__Output>): grpc.ClientUnaryCall;
  
  RemoveKey(argument: _qshim_v1_RemoveKeyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  RemoveKey(argument: _qshim_v1_RemoveKeyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  RemoveKey(argument: _qshim_v1_RemoveKeyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  RemoveKey(argument: _qshim_v1_RemoveKeyRequest, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  removeKey(argument: _qshim_v1_RemoveKeyRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  removeKey(argument: _qshim_v1_RemoveKeyRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  removeKey(argument: _qshim_v1_RemoveKeyRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  removeKey(argument: _qshim_v1_RemoveKeyRequest, callback: grpc.requestCallback<_qshim_v1_KeySlots__Output>): grpc.ClientUnaryCall;
  
  RenewLease(argument: _qshim_v1_RenewLeaseRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  RenewLease(argument: _qshim_v1_RenewLeaseRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  RenewLease(argument: _qshim_v1_RenewLeaseRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  RenewLease(argument: _qshim_v1_RenewLeaseRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  renewLease(argument: _qshim_v1_RenewLeaseRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  renewLease(argument: _qshim_v1_RenewLeaseRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  renewLease(argument: _qshim_v1_RenewLeaseRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  renewLease(argument: _qshim_v1_RenewLeaseRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  
  Resize(argument: _qshim_v1_ResizeVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Resize(argument: _qshim_v1_ResizeVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Resize(argument: _qshim_v1_ResizeVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  Resize(argument: _qshim_v1_ResizeVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  resize(argument: _qshim_v1_ResizeVolumeRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  resize(argument: _qshim_v1_ResizeVolumeRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  resize(argument: _qshim_v1_ResizeVolumeRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  resize(argument: _qshim_v1_ResizeVolumeRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  
  SetLimits(argument: _qshim_v1_SetLimitsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  SetLimits(argument: _qshim_v1_SetLimitsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  SetLimits(argument: _qshim_v1_SetLimitsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  SetLimits(argument: _qshim_v1_SetLimitsRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  setLimits(argument: _qshim_v1_SetLimitsRequest, metadata: grpc.Metadata, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  setLimits(argument: _qshim_v1_SetLimitsRequest, metadata: grpc.Metadata, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  setLimits(argument: _qshim_v1_SetLimitsRequest, options: grpc.CallOptions, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  setLimits(argument: _qshim_v1_SetLimitsRequest, callback: grpc.requestCallback<_qshim_v1_Volume__Output>): grpc.ClientUnaryCall;
  
  Watch(argument: _qshim_v1_WatchVolumesRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_VolumeEvent__Output>;
  Watch(argument: _qshim_v1_WatchVolumesRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_VolumeEvent__Output>;
  watch(argument: _qshim_v1_WatchVolumesRequest, metadata: grpc.Metadata, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_VolumeEvent__Output>;
  watch(argument: _qshim_v1_WatchVolumesRequest, options?: grpc.CallOptions): grpc.ClientReadableStream<_qshim_v1_VolumeEvent__Output>;
  
}

export interface VolumesHandlers extends grpc.UntypedServiceImplementation {
  AddKey: grpc.handleUnaryCall<_qshim_v1_AddKeyRequest__Output, _qshim_v1_KeySlots>;
  
  Attach: grpc.handleUnaryCall<_qshim_v1_AttachVolumeRequest__Output, _qshim_v1_Volume>;
  
  AttachMany: grpc.handleUnaryCall<_qshim_v1_AttachManyRequest__Output, _qshim_v1_BatchResponse>;
  
  ChangeKey: grpc.handleUnaryCall<_qshim_v1_ChangeKeyRequest__Output, _qshim_v1_KeySlots>;
  
  Detach: grpc.handleUnaryCall<_qshim_v1_DetachVolumeRequest__Output, _qshim_v1_Volume>;
  
  DetachMany: grpc.handleUnaryCall<_qshim_v1_DetachManyRequest__Output, _qshim_v1_BatchResponse>;
  
  Get: grpc.handleUnaryCall<_qshim_v1_GetVolumeRequest__Output, _qshim_v1_Volume>;
  
  List: grpc.handleUnaryCall<_qshim_v1_ListVolumesRequest__Output, _qshim_v1_ListVolumesResponse>;
  
  ListKeySlots: grpc.handleUnaryCall<_qshim_v1_ListKeySlotsRequest__Output, _qshim_v1_KeySlots>;
  
  ListStaleCopies: grpc.handleUnaryCall<_qshim_v1_ListStaleCopiesRequest__Output, _qshim_v1_ListStaleCopiesResponse>;
  
  Migrate: grpc.handleUnaryCall<_qshim_v1_MigrateVolumeRequest__Output, _qshim_v1_Operation>;
  
  Pivot: grpc.handleUnaryCall<_qshim_v1_PivotVolumeRequest__Output, _qshim_v1_Operation>;
  
  Plan: grpc.handleUnaryCall<_qshim_v1_PlanRequest__Output, _qshim_v1_PlanResponse>;
  
  ReleaseStaleCopy: grpc.handleUnaryCall<_qshim_v1_ReleaseStaleCopyRequest__Output, _qshim_v1_StaleCopy>;
  
  RemoveKey: grpc.handleUnaryCall<_qshim_v1_RemoveKeyRequest__Output, _qshim_v1_KeySlots>;
  
  RenewLease: grpc.handleUnaryCall<_qshim_v1_RenewLeaseRequest__Output, _qshim_v1_Volume>;
  
  Resize: grpc.handleUnaryCall<_qshim_v1_ResizeVolumeRequest__Output, _qshim_v1_Volume>;
  
  SetLimits: grpc.handleUnaryCall<_qshim_v1_SetLimitsRequest__Output, _qshim_v1_Volume>;
  
  Watch: grpc.handleServerStreamingCall<_qshim_v1_WatchVolumesRequest__Output, _qshim_v1_VolumeEvent>;
  
}

export interface VolumesDefinition extends grpc.ServiceDefinition {
  AddKey: MethodDefinition<_qshim_v1_AddKeyRequest, _qshim_v1_KeySlots, _qshim_v1_AddKeyRequest__Output, _qshim_v1_KeySlots__Output>
  Attach: MethodDefinition<_qshim_v1_AttachVolumeRequest, _qshim_v1_Volume, _qshim_v1_AttachVolumeRequest__Output, _qshim_v1_Volume__Output>
  AttachMany: MethodDefinition<_qshim_v1_AttachManyRequest, _qshim_v1_BatchResponse, _qshim_v1_AttachManyRequest__Output, _qshim_v1_BatchResponse__Output>
  ChangeKey: MethodDefinition<_qshim_v1_ChangeKeyRequest, _qshim_v1_KeySlots, _qshim_v1_ChangeKeyRequest__Output, _qshim_v1_KeySlots__Output>
  Detach: MethodDefinition<_qshim_v1_DetachVolumeRequest, _qshim_v1_Volume, _qshim_v1_DetachVolumeRequest__Output, _qshim_v1_Volume__Output>
  DetachMany: MethodDefinition<_qshim_v1_DetachManyRequest, _qshim_v1_BatchResponse, _qshim_v1_DetachManyRequest__Output, _qshim_v1_BatchResponse__Output>
  Get: MethodDefinition<_qshim_v1_GetVolumeRequest, _qshim_v1_Volume, _qshim_v1_GetVolumeRequest__Output, _qshim_v1_Volume__Output>
  List: MethodDefinition<_qshim_v1_ListVolumesRequest, _qshim_v1_ListVolumesResponse, _qshim_v1_ListVolumesRequest__Output, _qshim_v1_ListVolumesResponse__Output>
  ListKeySlots: MethodDefinition<_qshim_v1_ListKeySlotsRequest, _qshim_v1_KeySlots, _qshim_v1_ListKeySlotsRequest__Output, _qshim_v1_KeySlots__Output>
  ListStaleCopies: MethodDefinition<_qshim_v1_ListStaleCopiesRequest, _qshim_v1_ListStaleCopiesResponse, _qshim_v1_ListStaleCopiesRequest__Output, _qshim_v1_ListStaleCopiesResponse__Output>
  Migrate: MethodDefinition<_qshim_v1_MigrateVolumeRequest, _qshim_v1_Operation, _qshim_v1_MigrateVolumeRequest__Output, _qshim_v1_Operation__Output>
  Pivot: MethodDefinition<_qshim_v1_PivotVolumeRequest, _qshim_v1_Operation, _qshim_v1_PivotVolumeRequest__Output, _qshim_v1_Operation__Output>
  Plan: MethodDefinition<_qshim_v1_PlanRequest, _qshim_v1_PlanResponse, _qshim_v1_PlanRequest__Output, _qshim_v1_PlanResponse__Output>
  ReleaseStaleCopy: MethodDefinition<_qshim_v1_ReleaseStaleCopyRequest, _qshim_v1_StaleCopy, _qshim_v1_ReleaseStaleCopyRequest__Output, _qshim_v1_StaleCopy__Output>
  RemoveKey: MethodDefinition<_qshim_v1_RemoveKeyRequest, _qshim_v1_KeySlots, _qshim_v1_RemoveKeyRequest__Output, _qshim_v1_KeySlots__Output>
  RenewLease: MethodDefinition<_qshim_v1_RenewLeaseRequest, _qshim_v1_Volume, _qshim_v1_RenewLeaseRequest__Output, _qshim_v1_Volume__Output>
  Resize: MethodDefinition<_qshim_v1_ResizeVolumeRequest, _qshim_v1_Volume, _qshim_v1_ResizeVolumeRequest__Output, _qshim_v1_Volume__Output>
  SetLimits: MethodDefinition<_qshim_v1_SetLimitsRequest, _qshim_v1_Volume, _qshim_v1_SetLimitsRequest__Output, _qshim_v1_Volume__Output>
  Watch: MethodDefinition<_qshim_v1_WatchVolumesRequest, _qshim_v1_VolumeEvent, _qshim_v1_WatchVolumesRequest__Output, _qshim_v1_VolumeEvent__Output>
}
