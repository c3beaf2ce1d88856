// The boundary to Python: named arguments of a pass, each checked for device, dtype, shape and contiguity when it is
// taken. An argument that does not fit raises ValueError in one sentence that names it; a missing or unknown name
// raises TypeError.
#pragma once

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

namespace kinosplat {

namespace nb = nanobind;

inline std::string dtype_name(nb::dlpack::dtype dtype) {
    const char* kind = "unknown";
    switch (nb::dlpack::dtype_code(dtype.code)) {
    case nb::dlpack::dtype_code::Int:
        kind = "int";
        break;
    case nb::dlpack::dtype_code::UInt:
        kind = "uint";
        break;
    case nb::dlpack::dtype_code::Float:
        kind = "float";
        break;
    case nb::dlpack::dtype_code::Bfloat:
        kind = "bfloat";
        break;
    case nb::dlpack::dtype_code::Bool:
        return "bool";
    default:
        break;
    }
    return kind + std::to_string(dtype.bits);
}

inline std::string device_name(int type, int id) {
    if (type == nb::device::cpu::value)
        return "cpu";
    if (type == nb::device::cuda::value)
        return "cuda:" + std::to_string(id);
    return "device type " + std::to_string(type);
}

class Arguments {
    struct Value {
        std::string name;
        nb::handle given;
        nb::ndarray<nb::ro> array; // invalid for what is no array; keeps the memory alive during the call
        bool taken = false;
    };

  public:
    // All arrays must be on this device. Every array is imported once, here: that is what costs time at this boundary.
    Arguments(nb::kwargs values, int device_type, int device_id = 0)
        : owner_(std::move(values)), device_type_(device_type), device_id_(device_id) {
        values_.reserve(nb::len(owner_));
        for (auto [name, given] : owner_) {
            Value value{nb::cast<std::string>(name), given, {}};
            if (!given.is_none() && !PyFloat_Check(given.ptr()) && !PyLong_Check(given.ptr()))
                nb::try_cast(given, value.array);
            values_.push_back(std::move(value));
        }
    }

    bool is_given(const char* name) { return !value(name).given.is_none(); }

    bool is_double(const char* name) { return imported(name).dtype() == nb::dtype<double>(); }

    int64_t integer(const char* name) { return scalar<int64_t>(name, "an int"); }
    double number(const char* name) { return scalar<double>(name, "a number"); }
    bool flag(const char* name) { return scalar<bool>(name, "a bool"); }

    // An object of a class that this module binds; it lives as long as the caller's reference.
    template <class T>
    const T& object(const char* name) {
        const T* found = nullptr;
        if (!nb::try_cast(value(name).given, found) || !found)
            throw nb::type_error((std::string(name) + " must be of the native module's class for it.").c_str());
        return *found;
    }

    // Address of an array; T const for what is only read. A dimension of -1 may have any size.
    template <class T>
    T* array(const char* name, std::initializer_list<int64_t> shape) {
        const nb::ndarray<nb::ro>& array = imported(name);
        check(name, array, nb::dtype<std::remove_const_t<T>>(), shape);
        return static_cast<T*>(const_cast<void*>(static_cast<const void*>(array.data())));
    }

    // Null when the argument is None.
    template <class T>
    T* optional_array(const char* name, std::initializer_list<int64_t> shape) {
        return is_given(name) ? array<T>(name, shape) : nullptr;
    }

    // Size of dimension `axis` of an array taken elsewhere.
    int64_t size(const char* name, int axis) {
        const nb::ndarray<nb::ro>& array = imported(name);
        if (axis >= int(array.ndim()))
            throw nb::value_error(
                (std::string(name) + " must have more than " + std::to_string(axis) + " dimensions.").c_str());
        return int64_t(array.shape(axis));
    }

    // To be called when everything was taken: an argument nobody asked for is a mistake of the caller.
    void finish() const {
        for (const Value& value : values_)
            if (!value.taken)
                throw nb::type_error(("unknown argument " + value.name + ".").c_str());
    }

  private:
    Value& value(const char* name) {
        for (Value& value : values_)
            if (value.name == name) {
                value.taken = true;
                return value;
            }
        throw nb::type_error((std::string("missing argument ") + name + ".").c_str());
    }

    const nb::ndarray<nb::ro>& imported(const char* name) {
        const Value& found = value(name);
        if (!found.array.is_valid())
            throw nb::value_error((std::string(name) + " must be a tensor.").c_str());
        return found.array;
    }

    template <class T>
    T scalar(const char* name, const char* kind) {
        T result;
        if (!nb::try_cast(value(name).given, result))
            throw nb::type_error((std::string(name) + " must be " + kind + ".").c_str());
        return result;
    }

    void check(const char* name, const nb::ndarray<nb::ro>& array, nb::dlpack::dtype dtype,
               std::initializer_list<int64_t> shape) const {
        const std::string subject = std::string(name) + " must ";
        if (array.device_type() != device_type_ ||
            (device_type_ != nb::device::cpu::value && array.device_id() != device_id_))
            fail(subject + "be on " + device_name(device_type_, device_id_) + ", got " +
                 device_name(array.device_type(), array.device_id()) + "; move it there first.");
        if (array.dtype() != dtype)
            fail(subject + "be " + dtype_name(dtype) + ", got " + dtype_name(array.dtype()) + "; convert it first.");
        bool same = array.ndim() == shape.size();
        for (size_t i = 0; same && i < shape.size(); ++i)
            same = shape.begin()[i] == -1 || int64_t(array.shape(i)) == shape.begin()[i];
        if (!same) {
            std::string got = "(";
            for (size_t i = 0; i < array.ndim(); ++i)
                got += (i ? ", " : "") + std::to_string(array.shape(i));
            fail(subject + "have shape " + shape_text(shape) + ", got " + got + (array.ndim() == 1 ? ",)." : ")."));
        }
        if (array.size() == 0)
            return; // nothing to stride over
        int64_t expected = 1;
        for (size_t i = array.ndim(); i-- > 0;) {
            if (array.shape(i) > 1 && array.stride(i) != expected)
                fail(subject + "be contiguous; call .contiguous() on it first.");
            expected *= int64_t(array.shape(i));
        }
    }

    static std::string shape_text(std::initializer_list<int64_t> shape) {
        std::string text = "(";
        for (size_t i = 0; i < shape.size(); ++i)
            text += (i ? ", " : "") + (shape.begin()[i] == -1 ? std::string("any") : std::to_string(shape.begin()[i]));
        return text + (shape.size() == 1 ? ",)" : ")");
    }

    [[noreturn]] static void fail(const std::string& sentence) { throw nb::value_error(sentence.c_str()); }

    nb::kwargs owner_;
    int device_type_, device_id_;
    std::vector<Value> values_;
};

} // namespace kinosplat
