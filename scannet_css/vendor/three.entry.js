// What the viewer needs of three.js, and nothing else; README.md says how it becomes three.min.js.
export {
  BufferAttribute,
  BufferGeometry,
  DataTexture,
  GLSL3,
  PerspectiveCamera,
  Points,
  RawShaderMaterial,
  Scene,
  Vector3,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
