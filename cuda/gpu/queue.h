// How a call from Python reaches the GPU: arrays as addresses that Python has checked (render/cuda_call.py), a device
// and one of its streams.
#pragma once

#include <cstdint>
#include <nanobind/nanobind.h>

#include "gpu/check.h"

namespace kinosplat::gpu {

using Address = uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

// Makes `device` current for the length of a call, whatever the caller's thread had selected.
class CurrentDevice {
  public:
    explicit CurrentDevice(int device) {
        check(cudaGetDevice(&before_), "device");
        if (device != before_)
            check(cudaSetDevice(device), "device");
        changed_ = device != before_;
    }
    ~CurrentDevice() {
        if (changed_)
            cudaSetDevice(before_);
    }
    CurrentDevice(const CurrentDevice&) = delete;

  private:
    int before_ = 0;
    bool changed_ = false;
};

// Device, stream, and how to start and end a call on them.
struct Queue {
    int device;
    Address stream;
    cudaStream_t get() const { return reinterpret_cast<cudaStream_t>(stream); }
};

// For the length of a call: Python's lock is given up, and the queue's device is current.
class PassCall {
  public:
    explicit PassCall(const Queue& queue) : current_(queue.device) {}

  private:
    nanobind::gil_scoped_release release_;
    CurrentDevice current_;
};

} // namespace kinosplat::gpu
