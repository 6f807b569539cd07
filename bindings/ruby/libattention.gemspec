# frozen_string_literal: true

# SPDX-License-Identifier: BSD-3-Clause

Gem::Specification.new do |gem|
  gem.name = 'libattention'
  gem.version = File.read(File.expand_path('../../CMakeLists.txt', __dir__))[/project\(attention VERSION ([\d.]+)/, 1]
  gem.summary = 'Scaled dot-product and multi-head attention for CPUs'
  gem.description = "PyTorch's attention without PyTorch, through Fiddle; needs the shared library libattention"
  gem.authors = ['The libattention authors']
  gem.license = 'BSD-3-Clause'
  gem.files = Dir.chdir(__dir__) { Dir['lib/**/*.rb', 'README.md'] }
  gem.required_ruby_version = '>= 3.1'
  gem.metadata['rubygems_mfa_required'] = 'true'
end
