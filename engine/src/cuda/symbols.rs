//! The functions of NVIDIA's libraries that are called, here or in cudarc on our behalf.

/// The driver's; the first two are as old as the driver itself.
pub const DRIVER: [&str; 34] = [
    "cuDriverGetVersion",
    "cuGetErrorString",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuFuncGetAttribute",
    "cuFuncGetParamInfo",
    "cuFuncSetAttribute",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyDtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
];

/// NVRTC's.
pub const NVRTC: [&str; 8] = [
    "nvrtcCompileProgram",
    "nvrtcCreateProgram",
    "nvrtcDestroyProgram",
    "nvrtcGetCUBIN",
    "nvrtcGetCUBINSize",
    "nvrtcGetProgramLog",
    "nvrtcGetProgramLogSize",
    "nvrtcVersion",
];

/// cuBLASLt's.
pub const CUBLAS_LT: [&str; 13] = [
    "cublasLtCreate",
    "cublasLtDestroy",
    "cublasLtGetVersion",
    "cublasLtMatmul",
    "cublasLtMatmulAlgoGetHeuristic",
    "cublasLtMatmulDescCreate",
    "cublasLtMatmulDescDestroy",
    "cublasLtMatmulDescSetAttribute",
    "cublasLtMatmulPreferenceCreate",
    "cublasLtMatmulPreferenceDestroy",
    "cublasLtMatmulPreferenceSetAttribute",
    "cublasLtMatrixLayoutCreate",
    "cublasLtMatrixLayoutDestroy",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests' stand-ins have what is called, or the tests would not run, and nothing else.
    #[test]
    fn they_are_the_stand_ins() {
        for (names, source) in [
            (&DRIVER[..], include_str!("../../../tests/driver/cuda.cpp")),
            (&NVRTC, include_str!("../../../tests/driver/nvrtc.cpp")),
            (&CUBLAS_LT, include_str!("../../../tests/driver/cublaslt.cpp")),
        ] {
            for name in names {
                assert!(source.contains(&format!(" {name}(")), "{name} is not called, or its stand-in is missing");
            }
            let known = source.lines().filter_map(|line| line.split_once('(')?.0.split_once(' '));
            for (_, name) in known.filter(|(_, name)| name.starts_with("cu") || name.starts_with("nvrtc")) {
                assert!(names.contains(&name), "{name} is not listed");
            }
        }
    }
}
