# A stand-in for Homebrew, which is in no package: as much of it as the formula uses.
#   ruby homebrew.rb FORMULA SYSTEM MACHINE               prints the address and the checksum
#   ruby homebrew.rb FORMULA SYSTEM MACHINE FOLDER PREFIX  also installs what is in FOLDER
require "fileutils"
require "pathname"

SYSTEM, MACHINE = ARGV[1], ARGV[2]

# What Homebrew adds to a path: it takes files, or pairs of a file and its new name.
class Pathname
  def install(*files)
    mkpath
    files.each do |file|
      if file.is_a?(Hash)
        file.each { |from, to| FileUtils.cp(from, self / to) }
      else
        FileUtils.cp(file, self)
      end
    end
  end
end

class Formula
  @told = {}
  class << self
    def inherited(formula)
      super
      formula.instance_variable_set(:@told, {})
      @formula = formula
    end
    attr_reader :formula, :told

    %i[desc homepage version license url sha256].each do |name|
      define_method(name) do |text|
        raise "#{name} is said twice" if @told[name]

        @told[name] = text
      end
    end
    def on_macos = SYSTEM == "darwin" && yield
    def on_linux = SYSTEM == "linux" && yield
    def on_arm = MACHINE == "arm64" && yield
    def on_intel = MACHINE == "amd64" && yield
    def test = nil
  end

  def prefix = Pathname.new(ARGV[4])
  def bin = prefix / "bin"
  def man1 = prefix / "share/man/man1"
  def bash_completion = prefix / "etc/bash_completion.d"
  def zsh_completion = prefix / "share/zsh/site-functions"
  def fish_completion = prefix / "share/fish/vendor_completions.d"
end

load ARGV[0]
puts Formula.formula.told.fetch(:url), Formula.formula.told.fetch(:sha256)
Dir.chdir(ARGV[3]) { Formula.formula.new.install } if ARGV[3]
