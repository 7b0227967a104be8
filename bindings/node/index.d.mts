export * from './index.js';
import * as fastmq from './index.js';
export default fastmq;
