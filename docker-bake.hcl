# The same images in CI, with docker buildx bake: matrix, registry cache, SBOM and provenance.
#
#   docker buildx bake --set '*.tags=' --print        what would be built
#   TAGS from scripts/image_tags.py come through the environment: TAG_CPU, TAG_TORCH, TAG_JAX, TAG_REVIEW.

variable "REGISTRY" { default = "" }
variable "BASE_IMAGE" { default = "python:3.11-slim" }
variable "ACCELERATOR" { default = "cuda" }
variable "REVISION" { default = "unknown" }
variable "TAG_CPU" { default = "dev" }
variable "TAG_TORCH" { default = "dev" }
variable "TAG_JAX" { default = "dev" }
variable "TAG_REVIEW" { default = "dev" }
# "1" attests what is in an image and how it was made; needs a registry to push to.
variable "ATTEST" { default = "" }
# "1" writes the cache too; a pull request only reads it.
variable "WRITE_CACHE" { default = "" }

function "reference" {
  params = [name, tag]
  result = REGISTRY == "" ? "robolift-${name}:${tag}" : "${REGISTRY}/robolift-${name}:${tag}"
}

group "default" {
  targets = ["cpu", "torch", "jax", "review"]
}

target "image" {
  name    = image
  matrix  = { image = ["cpu", "torch", "jax", "review"] }
  context = "."
  dockerfile = "images/${image}/Dockerfile"
  platforms  = ["linux/amd64"]
  args = {
    BASE_IMAGE  = BASE_IMAGE
    ACCELERATOR = ACCELERATOR
    REVISION    = REVISION
    CONTENT_TAG = { cpu = TAG_CPU, torch = TAG_TORCH, jax = TAG_JAX, review = TAG_REVIEW }[image]
  }
  secret = ["type=env,id=pip_conf,env=PIP_CONF"]
  tags   = [reference(image, { cpu = TAG_CPU, torch = TAG_TORCH, jax = TAG_JAX, review = TAG_REVIEW }[image])]
  cache-from = REGISTRY == "" ? [] : ["type=registry,ref=${REGISTRY}/robolift-${image}:cache-${ACCELERATOR}"]
  cache-to = REGISTRY == "" || WRITE_CACHE == "" ? [] : [
    "type=registry,ref=${REGISTRY}/robolift-${image}:cache-${ACCELERATOR},mode=max",
  ]
  attest = ATTEST == "" ? [] : ["type=provenance,mode=max", "type=sbom"]
}
