'use strict';
// The symbols of `using` and `await using`, which Node 18 lacks; what compilers put in their place
// there finds them too.

module.exports = {
  dispose: Symbol.dispose ?? Symbol.for('Symbol.dispose'),
  asyncDispose: Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose'),
};
